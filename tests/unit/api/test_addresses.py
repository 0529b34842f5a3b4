"""Addresses: no user and password in any field that holds one, and what of an address may be told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from trainyard.api import API_VERSION
from trainyard.api.addresses import NO_CREDENTIALS, told
from trainyard.api.crd import training_run_crd, training_schedule_crd
from trainyard.api.manifest import InvalidManifest, parse_run

SIGNED = "https://b.example.org/k.jsonl?X-Amz-Signature=0123abcd&X-Amz-Expires=60"


def run(**spec: Any) -> dict[str, Any]:
    text = {"name": "d", "inline": {"text": "x"}}
    model = {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}}
    whole = {"model": model, "datasets": [text], "training": {"method": "Pretrain"}, **spec}
    return {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": "r"}, "spec": whole}


def dataset(**source: Any) -> dict[str, Any]:
    return run(datasets=[{"name": "d", **source}])


def addresses(schema: dict[str, Any], path: str = "spec") -> Iterator[tuple[str, dict[str, Any]]]:
    for name, node in schema.get("properties", {}).items():
        if "://" in node.get("pattern", ""):
            yield f"{path}.{name}", node
        yield from addresses(node, f"{path}.{name}")
        yield from addresses(node.get("items", {}), f"{path}.{name}[]")


@pytest.mark.parametrize("crd", [training_run_crd(), training_schedule_crd()], ids=lambda c: c["spec"]["names"]["kind"])
def test_every_field_with_an_address_has_the_rule(crd: dict[str, Any]) -> None:
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    found = dict(addresses(properties["spec"]))
    assert len(found) >= 17
    for path, node in found.items():
        messages = [rule["message"] for rule in node.get("x-kubernetes-validations", ())]
        assert messages == [NO_CREDENTIALS.message], path


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (dataset(storageUri="https://me:pa55@host/d.jsonl"), "spec.datasets[0].storageUri"),
        (dataset(storageUri="https://me:pa/55@host/d.jsonl"), "spec.datasets[0].storageUri"),
        (dataset(storageUri="https://t0ken-pa55@host/d.jsonl"), "spec.datasets[0].storageUri"),
        (dataset(storageUri="s3://me:pa55@bucket/d.jsonl"), "spec.datasets[0].storageUri"),
        (dataset(storageUri="hf://me:pa55@org/name"), "spec.datasets[0].storageUri"),
        (dataset(code={"url": "https://me:pa55@host/a.git"}), "spec.datasets[0].code.url"),
        (dataset(loki={"url": "http://me:pa55@host", "queries": ["{}"]}), "spec.datasets[0].loki.url"),
        (
            dataset(manifest={"storageUri": "https://me:pa55@host/manifest.json"}),
            "spec.datasets[0].manifest.storageUri",
        ),
        (run(model={"storageUri": "hf://me:pa55@org/name"}), "spec.model.storageUri"),
        (run(tracking={"mlflow": {"trackingUri": "http://me:pa55@host"}}), "spec.tracking.mlflow.trackingUri"),
        (run(datasetUpload={"storageUri": "s3://me:pa55@bucket/d"}), "spec.datasetUpload.storageUri"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_user_and_password_are_refused_by_the_field_and_not_repeated(manifest: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse_run(manifest)
    (fault,) = [fault for fault in caught.value.faults if fault.field == field]
    assert fault.message == NO_CREDENTIALS.message
    assert "secretRef" in fault.message
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://org/name@v1.2",
        "hf://org/name@refs-pr-1/data/*.jsonl",
        "https://host:8080/of@me/d.jsonl",
        "https://[::1]:8080/of@me/d.jsonl",
        "s3://bucket/mail/me@example.org.jsonl",
        "pvc://claim/me@example.org/d.jsonl",
        "file:///data/me:you@example.org.jsonl",
        SIGNED,
    ],
)
def test_what_only_looks_like_it_is_accepted(uri: str) -> None:
    parse_run(dataset(storageUri=uri))


def test_a_model_has_its_revision() -> None:
    for uri in ("hf://org/name@main", "hf://org/name@refs/pr/1", "pvc://claim/a@b"):
        parse_run(run(model={"storageUri": uri}, training={"method": "CPT"}))


def test_what_has_the_wrong_form_is_not_repeated_either() -> None:
    with pytest.raises(InvalidManifest, match="does not have the form") as caught:
        parse_run(dataset(storageUri="ftp://host/d.jsonl?private_token=t0ps3cret"))
    assert "t0ps3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://me:pa55@host/a: HTTP 404", "https://host/a: HTTP 404"),
        ("https://me:pa/5@5@host/a: HTTP 404", "https://host/a: HTTP 404"),
        (f"dataset d: {SIGNED} did not answer", "dataset d: https://b.example.org/k.jsonl?… did not answer"),
        (f"'{SIGNED}', '{SIGNED}'", "'https://b.example.org/k.jsonl?…', 'https://b.example.org/k.jsonl?…'"),
        ("https://h/a#access_token=t0ken now", "https://h/a#… now"),
        ("HTTPS://ME:PA55@H/A?X=1", "HTTPS://H/A?…"),
        (
            "HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: /k.jsonl?private_token=abc (Caused by X)",
            "HTTPConnectionPool(host='h', port=80): Max retries exceeded with url: /k.jsonl?… (Caused by X)",
        ),
        ("invalid private_token=abc given", "invalid private_token=… given"),
        (
            "redirect_uri=https%3A%2F%2Fh%2F%3FX-Amz-Signature%3Dabc",
            "redirect_uri=https%3A%2F%2Fh%2F%3FX-Amz-Signature%3D…",
        ),
        # What has to stay readable.
        ("pvc://claim/part-?/year=2024", "pvc://claim/part-?/year=2024"),
        ("pvc://claim/part-?.jsonl", "pvc://claim/part-?.jsonl"),
        ("hf://org/name@main does not exist", "hf://org/name@main does not exist"),
        ("the query 'up{job=~\"a?b\"}' has too many series", "the query 'up{job=~\"a?b\"}' has too many series"),
        ("unknown field; did you mean maxSteps?", "unknown field; did you mean maxSteps?"),
        ("step 5/10, loss=2.5, tokens=7", "step 5/10, loss=2.5, tokens=7"),
        ("https://h:8080/@scope/name is gone", "https://h:8080/@scope/name is gone"),
    ],
)
def test_told(text: str, expected: str) -> None:
    assert told(text) == expected
    assert told(expected) == expected, "cutting twice changes nothing"


def test_told_takes_no_time_on_texts_that_are_made_to_take_it() -> None:
    import time

    for text in (
        "a" * 200_000,
        "/" * 100_000,
        "x://" * 50_000,
        "?" * 100_000 + "=",
        "/a?" * 50_000,
        ("a:" * 50_000) + "/",
    ):
        started = time.perf_counter()
        told(text)
        assert time.perf_counter() - started < 2.0, text[:4]
