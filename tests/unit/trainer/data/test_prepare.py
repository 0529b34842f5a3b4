"""The prepare step as a whole, on small data, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.run_contexts import context_of, prepared
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.errors import UserError


def context(tmp_path: Path, datasets: list[dict[str, Any]], **training: Any) -> RunContext:
    method = "Pretrain" if all(d.get("format", "Text") == "Text" for d in datasets) else "SFT"
    spec = {
        "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 320}}},
        "datasets": datasets,
        "training": {"method": method, "maxLength": 32, **training},
    }
    return context_of(tmp_path, spec)


def run(made: RunContext, tmp_path: Path) -> dict[str, Any]:
    return prepared(made, tmp_path, prepare=prepare)


def jsonl(tmp_path: Path, name: str, *records: Any) -> str:
    folder = tmp_path / "volumes" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    (folder / name).write_text("\n".join(lines) + "\n")
    return f"pvc://data/{name}"


TEXTS = [{"text": f"record {n} of the train number {n * 7 % 11}"} for n in range(60)]


def test_several_data_sets_with_roles_and_weights(tmp_path: Path) -> None:
    made = context(
        tmp_path,
        [
            {"name": "a", "storageUri": jsonl(tmp_path, "a.jsonl", *TEXTS), "split": {"test": 0.2}, "weight": 2},
            {"name": "b", "inline": {"text": "one paragraph\n\nand another"}, "role": "Eval"},
        ],
    )
    manifest = run(made, tmp_path)
    splits = manifest["splits"]
    assert splits["eval"]["records"] == 2
    assert splits["train"]["records"] + splits["test"]["records"] == 60
    assert splits["train"]["examples"] == 2 * splits["train"]["records"]
    train = Sequences.open(made.data_dir / "train", vocab_size=manifest["vocabSize"])
    assert len(train) == splits["train"]["sequences"]
    assert not list(made.work_dir.rglob("*spool*"))
    assert not list(made.work_dir.rglob("staging"))


def test_a_second_run_is_instant_and_another_specification_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = jsonl(tmp_path, "a.jsonl", *TEXTS)
    first = run(context(tmp_path, [{"name": "a", "storageUri": uri}]), tmp_path)
    jsonl(tmp_path, "a.jsonl", {"text": "changed"})
    again = run(context(tmp_path, [{"name": "a", "storageUri": uri}]), tmp_path)
    assert again == first
    assert "nothing to do" in capsys.readouterr().out
    other = run(context(tmp_path, [{"name": "a", "storageUri": uri}], maxLength=16), tmp_path)
    assert other["digest"] == first["digest"], "the run's dataset version stays as it was"
    assert other["splits"] != first["splits"], "its tokens do not"
    changed = run(context(tmp_path, [{"name": "a", "storageUri": uri, "limit": 10}]), tmp_path)
    assert changed["digest"] != first["digest"]


def test_damaged_data_is_prepared_again(tmp_path: Path) -> None:
    uri = jsonl(tmp_path, "a.jsonl", *TEXTS)
    made = context(tmp_path, [{"name": "a", "storageUri": uri}])
    first = run(made, tmp_path)
    (made.data_dir / "train" / "tokens.bin").unlink()
    assert run(made, tmp_path) == first
    assert (made.data_dir / "train" / "tokens.bin").exists()


def test_the_digest_is_of_the_records(tmp_path: Path) -> None:
    one = run(context(tmp_path, [{"name": "a", "storageUri": jsonl(tmp_path, "a.jsonl", *TEXTS)}]), tmp_path)
    spaced = [json.dumps(record, indent=None, separators=(" , ", " : ")) for record in TEXTS]
    other = tmp_path / "other"
    other.mkdir()
    two = run(context(other, [{"name": "a", "storageUri": jsonl(other, "a.jsonl", *spaced)}]), other)
    assert one["digest"] == two["digest"]


def test_all_faults_are_counted_and_twenty_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = jsonl(tmp_path, "bad.jsonl", *TEXTS[:5], *["{"] * 30)
    worse = jsonl(tmp_path, "worse.jsonl", {"txt": "a"})
    made = context(tmp_path, [{"name": "a", "storageUri": bad}, {"name": "b", "storageUri": worse}])
    with pytest.raises(UserError) as caught:
        run(made, tmp_path)
    assert caught.value.exit_code == ExitCode.INVALID_DATA
    assert caught.value.message.startswith("31 of 36 records cannot be used: bad.jsonl:6: not JSON")
    assert caught.value.message.endswith("; and 28 more")
    printed = capsys.readouterr().out
    assert printed.count("not JSON") == 20
    assert "and 11 more" in printed
    assert not made.data_dir.exists()
    assert not list(made.work_dir.iterdir()), "nothing is left over"


def test_a_data_set_without_records(tmp_path: Path) -> None:
    made = context(tmp_path, [{"name": "a", "storageUri": jsonl(tmp_path, "a.jsonl", {"text": " "})}])
    with pytest.raises(UserError, match=r"dataset a: pvc://data/a.jsonl holds no records \(1 empty ones\)"):
        run(made, tmp_path)


def test_prompts_that_fill_every_sequence(tmp_path: Path) -> None:
    record = {"prompt": "very long " * 60, "completion": "short"}
    made = context(
        tmp_path, [{"name": "a", "storageUri": jsonl(tmp_path, "a.jsonl", record), "format": "PromptCompletion"}]
    )
    with pytest.raises(UserError, match="nothing is left to train on") as caught:
        run(made, tmp_path)
    assert "raise spec.training.maxLength (now 32)" in caught.value.hint


def test_a_limit_is_never_exceeded_by_duplicates(tmp_path: Path) -> None:
    uri = jsonl(tmp_path, "a.jsonl", *[{"text": "the same"}] * 50, *TEXTS)
    manifest = run(context(tmp_path, [{"name": "a", "storageUri": uri, "limit": 7}]), tmp_path)
    assert manifest["splits"]["train"]["records"] <= 7


def test_a_model_folder_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "volumes" / "models" / "qwen").mkdir(parents=True)
    spec = {
        "model": {"storageUri": "pvc://models/llama"},
        "datasets": [{"name": "a", "inline": {"text": "x"}}],
        "training": {"method": "CPT"},
    }
    made = context_of(tmp_path, spec)
    with pytest.raises(UserError, match="pvc://models/llama is not a folder") as caught:
        run(made, tmp_path)
    assert "qwen" in caught.value.hint


def test_a_script_of_ones_own_gets_the_checked_records(tmp_path: Path) -> None:
    uri = jsonl(tmp_path, "a.jsonl", *TEXTS)
    spec = {
        "image": "my/image",
        "command": ["python", "train.py"],
        "datasets": [{"name": "a", "storageUri": uri, "split": {"eval": 0.2}, "weight": 2}],
    }
    made = context_of(tmp_path, spec)
    splits = run(made, tmp_path)["splits"]
    train = [json.loads(line) for line in (made.data_dir / "train.jsonl").read_text().splitlines()]
    held_out = [json.loads(line) for line in (made.data_dir / "eval.jsonl").read_text().splitlines()]
    assert len(train) == 2 * splits["train"]["records"]
    assert len(held_out) == splits["eval"]["records"] > 0
    assert {r["text"] for r in train} | {r["text"] for r in held_out} == {r["text"] for r in TEXTS}
    assert not (made.data_dir / "test.jsonl").exists()
