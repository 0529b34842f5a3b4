"""The example examples/homelab-data, run as it stands: only addresses are others, and the taint of this cluster's GPU node
is tolerated.

The code is this project's own; thirty days of metrics and logs of the names that the example asks for were written through
the servers' own ways in. The hub serves a small Qwen3 under the name of the one that the example wants.
"""

from __future__ import annotations

import json
import math
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.e2e import measure, monitoring, runs
from tests.e2e.kube import Kube, Object
from tests.e2e.test_schedules import trainyard
from tests.e2e.web import ADDRESS, PASSWORD, USER
from tests.servers.git_server import git, serving
from tests.servers.source_servers import create_blocks, loki, prometheus
from tests.unit.trainer.hub_stand_in import Hub
from trainyard.api.manifest import read_documents
from trainyard.api.schedule.trainingschedule import SCHEDULE_LABEL
from trainyard.controller.kube.resources import SECRETS, TRAININGRUNS, TRAININGSCHEDULES

pytestmark = [pytest.mark.servers, pytest.mark.timeout(1800)]

NAME = "homelab-data"
DAYS = 30
SAMPLE_SECONDS = 120
NOTIFI = ("api", "worker", "mailer")
VOLUMES = ("photos", "mail")


def write_metrics(path: Path, end: int) -> None:
    """Thirty days of `up`, processor time and volumes: waves by the day, an outage, a volume that fills."""
    moments = range(end - (DAYS + 1) * 86400, end, SAMPLE_SECONDS)
    with open(path, "w") as out:

        def family(name: str, kind: str, suffix: str, series: dict[str, list[float]]) -> None:
            out.write(f"# TYPE {name} {kind}\n")
            for labels, values in series.items():
                for at, value in zip(moments, values, strict=True):
                    out.write(f"{name}{suffix}{{{labels}}} {value:.6g} {at}\n")

        def wave(at: int, number: int) -> float:
            return 0.4 + 0.1 * number + 0.3 * math.sin(at / 86400 * 2 * math.pi + number)

        down = range(end - 9 * 86400, end - 9 * 86400 + 7200)
        family(
            "up",
            "gauge",
            "",
            {f'job="{s}"': [float(s != "mailer" or at not in down) for at in moments] for s in NOTIFI},
        )
        used: dict[str, list[float]] = {}
        for number, service in enumerate(NOTIFI):
            total, values = 0.0, []
            for at in moments:
                total += wave(at, number) * SAMPLE_SECONDS
                values.append(total)
            used[f'namespace="notifi-{service}"'] = values
        family("container_cpu_usage_seconds", "counter", "_total", used)
        claims = [f'persistentvolumeclaim="{name}"' for name in VOLUMES]
        family("kubelet_volume_stats_capacity_bytes", "gauge", "", {claim: [1e11 for _ in moments] for claim in claims})
        filled = {
            claim: [1e10 * (1 + number) + 2e4 * (number + 1) * (at - moments[0]) for at in moments]
            for number, claim in enumerate(claims)
        }
        family("kubelet_volume_stats_used_bytes", "gauge", "", filled)
        out.write("# EOF\n")


def lines(end: int) -> Iterator[monitoring.Entry]:
    """A line of each service every five minutes; now and then a warning, and once a day a quarter of an hour of errors."""
    for second in range(end - DAYS * 86400 + 300, end - 60, 300):
        for number, service in enumerate(NOTIFI):
            stream = (("component", service), ("namespace", "notifi"), ("pod", f"notifi-{service}-0"))
            turn = second // 300 + number * 97
            text = f'level=info msg="request {turn} served" status=200'
            if turn % 288 < 4:
                text = f'level=error msg="message {turn} was not sent" error="connection refused"'
            elif turn % 5 == 0:
                text = f'level=warn msg="queue has {turn % 700} messages"'
            yield stream, second * monitoring.NANO + number, text


def small_qwen3(folder: Path) -> dict[str, bytes]:
    """The files of a Qwen3 that a processor can train, with random weights and a tokenizer of its own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
    raw.train([str(path) for path in sorted((ROOT / "docs").glob("*.md"))], trainer)
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|endoftext|>", pad_token="<|endoftext|>").save_pretrained(
        folder
    )
    config = Qwen3Config(
        vocab_size=raw.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        eos_token_id=0,
        pad_token_id=0,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def manifest(addresses: dict[str, str], hub: str) -> Object:
    """The example with other addresses, for the node of this cluster."""
    text = (ROOT / "examples" / NAME / "trainingschedule.yaml").read_text()
    for theirs, ours in addresses.items():
        assert theirs in text
        text = text.replace(theirs, ours)
    whole = json.loads(json.dumps(read_documents(text)[0].value))
    whole["spec"]["template"]["spec"] |= {
        "podTemplate": {"env": [{"name": "HF_ENDPOINT", "value": hub}]},
        "placement": {"tolerations": [{"key": "dedicated", "operator": "Exists"}]},
    }
    return {"metadata": whole["metadata"], "spec": whole["spec"]}


def test_the_example_runs_as_it_stands(kube: Kube, space: str, tmp_path: Path) -> None:
    end = int(time.time()) // SAMPLE_SECONDS * SAMPLE_SECONDS
    write_metrics(tmp_path / "metrics.txt", end)
    create_blocks(tmp_path / "metrics.txt", tmp_path / "data")
    (tmp_path / "git" / "notifi").mkdir(parents=True)
    git(tmp_path, "clone", "--quiet", "--bare", str(ROOT), "git/notifi/notifi-services.git")
    subprocess.run(
        ["git", "branch", "-f", "main", "HEAD"], cwd=tmp_path / "git/notifi/notifi-services.git", check=False
    )
    for folder in ("lines", "model"):
        (tmp_path / folder).mkdir()
    kube.create(
        SECRETS, space, {"metadata": {"name": "git-login"}, "stringData": {"username": USER, "token": PASSWORD}}
    )
    with (
        prometheus(tmp_path / "data", host=ADDRESS) as metrics,
        loki(tmp_path / "lines", host=ADDRESS) as logs,
        serving(tmp_path / "git", login=f"{USER}:{PASSWORD}", host=ADDRESS) as repositories,
        Hub(name="Qwen/Qwen3-0.6B", files=small_qwen3(tmp_path / "model")).running(ADDRESS) as hub,
    ):
        monitoring.ship(logs, lines(end), days=DAYS)
        addresses = {
            "https://git.example.org": repositories.url,
            "http://prometheus.monitoring.svc:9090": metrics.url,
            "http://loki.monitoring.svc:3100": logs.url,
        }
        kube.create(TRAININGSCHEDULES, space, manifest(addresses, hub.url))
        done = trainyard("run-now", NAME, "-n", space)
        assert done.returncode == 0, done.stderr
        (made,) = kube.list(TRAININGRUNS, space, labels=f"{SCHEDULE_LABEL}={NAME}")
        run = runs.until_succeeded(kube, space, made["metadata"]["name"], seconds=900)
    sources = {s["name"]: s["records"] for s in run["status"]["dataset"]["sources"]}
    assert sources.keys() == {"code", "metrics", "logs"}
    assert min(sources.values()) > 10
    after, before = runs.evaluated(run), runs.evaluated(run, "baseline")
    assert after["loss"] < before["loss"]
    measure.record("homelab", sources=sources, after=after, before=before)
