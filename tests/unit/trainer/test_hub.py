"""Models from a hub, with a small hub of our own on the loopback address: HF_ENDPOINT, revisions, tokens, refusals, and
what happens when nobody answers.

The client reads its settings when it is imported, so every case runs in a process of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer import own_process
from tests.unit.trainer.hub_stand_in import SHA, Hub

PROGRAM = """
import json, sys
from pathlib import Path
from trainyard.api.base import SecretRef
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.sources import fetch
from trainyard.trainer.errors import UserError
from trainyard.trainer.volume import origin
origin.PAUSES = (0.01, 0.01)
class Context:
    secrets_dir = Path(sys.argv[2])
    volumes_dir = Path(sys.argv[2])
try:
    ref = SecretRef(name="hub") if (Context.secrets_dir / "hub").exists() else None
    if sys.argv[3] == "data":
        dataset = Dataset.model_validate({"name": "d", "storageUri": sys.argv[1], **({"secretRef": {"name": "hub"}} if ref else {})})
        found = fetch(dataset, volumes=Context.volumes_dir, secrets=Context.secrets_dir, staging=Context.volumes_dir)
        print(json.dumps({"files": [f.name for f in found], "text": "".join(f.path.read_text() for f in found)}))
        raise SystemExit
    folder = origin.local_folder(sys.argv[1], context=Context, secret_ref=ref, weights=sys.argv[3] == "weights")
    print(json.dumps({"files": sorted(f.name for f in folder.iterdir()), "revision": origin.revision_of(folder)}))
except UserError as error:
    print(json.dumps({"code": int(error.exit_code), "message": error.message, "hint": error.hint}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub().running() as started:
        yield started


def ask(uri: str, place: Path, endpoint: str, *, weights: bool = True, data: bool = False) -> dict[str, Any]:
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("HF_")},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(place / "cache"),
        "HF_HUB_DISABLE_XET": "1",
    }
    (place / "secrets").mkdir(exist_ok=True)
    wanted = "data" if data else "weights" if weights else "tokenizer"
    done = own_process.run(PROGRAM, uri, str(place / "secrets"), wanted, environment=environment)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def with_token(place: Path, token: str) -> None:
    (place / "secrets" / "hub").mkdir(parents=True)
    (place / "secrets" / "hub" / "token").write_text(token + "\n")


def test_weights_and_tokenizer_but_nothing_to_unpickle_or_run(hub: Hub, tmp_path: Path) -> None:
    answer = ask("hf://org/open", tmp_path, hub.url)
    assert answer == {"files": ["config.json", "model.safetensors", "tokenizer.json"], "revision": SHA}


def test_the_tokenizer_alone(hub: Hub, tmp_path: Path) -> None:
    assert ask("hf://org/open@main", tmp_path, hub.url, weights=False)["files"] == ["config.json", "tokenizer.json"]


def test_a_revision_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    answer = ask("hf://org/open@v9", tmp_path, hub.url)
    assert answer["code"] == 65
    assert answer["message"] == "hf://org/open@v9: there is no such revision"


def test_a_model_that_is_not_there(hub: Hub, tmp_path: Path) -> None:
    answer = ask("hf://org/opne", tmp_path, hub.url)
    assert answer["code"] == 65
    assert "there is no such model, or it is private" in answer["message"]
    assert "spec.model.secretRef" in answer["hint"]


def test_a_gated_model(hub: Hub, tmp_path: Path) -> None:
    answer = ask("hf://org/gated", tmp_path, hub.url)
    assert answer["code"] == 65
    assert "is gated and access is refused" in answer["message"]
    with_token(tmp_path / "with", "hf_secret")
    assert ask("hf://org/gated", tmp_path / "with", hub.url)["revision"] == SHA
    assert "Bearer hf_secret" in hub.tokens


def test_a_wrong_token_is_not_shown(hub: Hub, tmp_path: Path) -> None:
    with_token(tmp_path, "hf_wrong")
    answer = ask("hf://org/gated", tmp_path, hub.url)
    assert answer["code"] == 65
    assert "hf_wrong" not in json.dumps(answer)


def test_a_secret_without_a_token(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "secrets" / "hub").mkdir(parents=True)
    answer = ask("hf://org/open", tmp_path, hub.url)
    assert answer["code"] == 64
    assert "has neither the key token nor HF_TOKEN" in answer["message"]


def test_nobody_answers(hub: Hub, tmp_path: Path) -> None:
    """First time: three tries, then exit code 69. With the model in the cache it does not matter."""
    answer = ask("hf://org/open", tmp_path, "http://127.0.0.1:9")
    assert answer["code"] == 69
    assert "the hub did not answer in 3 tries" in answer["message"]
    ask("hf://org/open", tmp_path, hub.url)
    assert ask("hf://org/open", tmp_path, "http://127.0.0.1:9")["revision"] == SHA


def test_files_of_a_dataset(hub: Hub, tmp_path: Path) -> None:
    both = {"files": ["data/test.jsonl", "data/train.jsonl"], "text": '{"text": "b"}\n{"text": "a"}\n'}
    assert ask("hf://org/open@main/data", tmp_path, hub.url, data=True) == both
    one = {"files": ["data/train.jsonl"], "text": '{"text": "a"}\n'}
    assert ask("hf://org/open/data/train.jsonl", tmp_path, hub.url, data=True) == one
    assert ask("hf://org/open/data/tr*.jsonl", tmp_path, hub.url, data=True) == one


def test_a_dataset_that_is_gated(hub: Hub, tmp_path: Path) -> None:
    refused = ask("hf://org/gated", tmp_path, hub.url, data=True)
    assert refused["message"] == "hf://org/gated is gated and access is refused"
    assert "spec.datasets[d].secretRef (key token)" in refused["hint"]
    with_token(tmp_path, "hf_secret")
    assert "data/test.jsonl" in ask("hf://org/gated", tmp_path, hub.url, data=True)["files"]


def test_no_such_dataset(hub: Hub, tmp_path: Path) -> None:
    assert "there is no such dataset, or it is private" in ask("hf://org/none", tmp_path, hub.url, data=True)["message"]
