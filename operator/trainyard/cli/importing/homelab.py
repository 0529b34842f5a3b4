"""A ConfigMap (or Secret) with the settings of a homelab's TRM pipeline: what is collected, and how the model is trained.

Ten names. What they leave open, a run needs: which queries, and which problems are made of what is found. Those are the ones of
examples/homelab-data, and are told as such.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from trainyard.cli.exits import Refused
from trainyard.cli.importing.reading import Reading, number

NAMES = (
    "NOTIFI_SERVICES_PATH",
    "PROMETHEUS_URL",
    "LOKI_URL",
    "TEMPO_URL",
    "DATA_DAYS",
    "EPOCHS",
    "LR",
    "L_LAYERS",
    "H_CYCLES",
    "L_CYCLES",
)
SOURCES = {
    "PROMETHEUS_URL": ("metrics", "prometheus", {"queries": ["up"]}),
    "LOKI_URL": ("logs", "loki", {"queries": ['{namespace=~".+"} |~ "(?i)(error|warn)"']}),
    "TEMPO_URL": ("traces", "tempo", {}),
}
"""By the variable of the address: dataset, source, and what it is asked."""
WRAPPED = ("ConfigMap", "Secret")


def is_one(config: Mapping[str, Any]) -> bool:
    return any(name in _values(config) for name in NAMES)


def read(reading: Reading) -> None:
    kind = reading.take("kind")
    if kind in WRAPPED:
        for name in ("apiVersion", "type", "metadata.name", "metadata.namespace"):
            reading.take(name)

    def setting(name: str) -> str | None:
        plain = reading.take(name, f"stringData.{name}") if kind == "Secret" else reading.take(name, f"data.{name}")
        encoded = reading.take(f"data.{name}") if kind == "Secret" else None
        return _decoded(name, encoded) if encoded is not None else None if plain is None else str(plain)

    reading.put("training.method", "TRM")
    for name, field in (
        ("EPOCHS", "training.numTrainEpochs"),
        ("LR", "training.learningRate"),
        ("L_LAYERS", "model.trm.lLayers"),
        ("H_CYCLES", "model.trm.hCycles"),
        ("L_CYCLES", "model.trm.lCycles"),
    ):
        if (value := setting(name)) is not None:
            reading.put(field, _number(name, value))
    reading.spec.setdefault("model", {}).setdefault("trm", {})
    days = setting("DATA_DAYS")
    datasets: list[dict[str, Any]] = []
    if folder := setting("NOTIFI_SERVICES_PATH"):
        place = reading.place(folder, what="NOTIFI_SERVICES_PATH")
        made = {"format": "TRM", "generate": {"tasks": ["CodeConfigKey", "CodeDependency"]}}
        datasets.append({"name": "code", "code": place} | made)
    for name, (dataset, source, asked) in SOURCES.items():
        if url := setting(name):
            window = {"window": {"days": _number("DATA_DAYS", days)}} if days is not None else {}
            datasets.append({"name": dataset, source: {"url": url} | asked | window, "format": "TRM", "generate": {}})
            if "queries" in asked:
                reading.note(f"{name} names no queries: {asked['queries'][0]} is asked; change datasets[{dataset}]")
    if datasets:
        reading.spec["datasets"] = datasets


def _values(config: Mapping[str, Any]) -> Mapping[str, Any]:
    if config.get("kind") not in WRAPPED:
        return config
    return {**(config.get("data") or {}), **(config.get("stringData") or {})}


def _decoded(name: str, text: Any) -> str:
    try:
        return base64.b64decode(str(text), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Refused(f"data.{name} of the Secret is not base64: put plain values into stringData") from None


def _number(name: str, text: str) -> Any:
    if isinstance(found := number(text.strip()), str):
        raise Refused(f"{name} is {text[:60]!r}, which is no number")
    return found
