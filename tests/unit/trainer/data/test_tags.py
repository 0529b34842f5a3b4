"""Tags go with held-out records to their examples, and change nothing about the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.unit.trainer.run_contexts import context_of, prepared
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.data.records import Built
from trainyard.trainer.data.tags import prepared_tags, read_tags
from trainyard.trainer.data.version import ensure_dataset


def spec(*, tagged: bool, **dataset: Any) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [{"prompt": f"question {n}?\n", "completion": f"answer {n % 20}"} for n in range(60)]
    rows += rows[:10]
    for n, row in enumerate(rows if tagged else ()):
        row |= {"metadata": {"source": f"book {row['prompt'][9:11].strip('?')}", "type": 3 if n % 2 else "how", "n": n}}
    return {
        "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
        "datasets": [
            {
                "name": "d",
                "format": "PromptCompletion",
                "inline": {"records": rows},
                "split": {"eval": 0.4},
                "deduplicate": "Exact",
                **dataset,
            }
        ],
        "training": {"method": "SFT", "maxLength": 64},
    }


def built(folder: Path, **wanted: Any) -> Built:
    folder.mkdir()
    return ensure_dataset(context_of(folder, spec(**wanted)))


def test_each_held_out_record_keeps_its_own_tags(tmp_path: Path) -> None:
    version = built(tmp_path / "a", tagged=True)
    pairs = list(zip(version.records("eval"), version.tags("eval"), strict=True))
    assert len(pairs) > 5
    for (record, _), tags in pairs:
        assert tags["source"] == f"book {record['prompt'][9:11].strip('?')}"
        assert tags.get("type") in (None, "how")
        assert "metadata" not in record
    assert any("type" in tags for _, tags in pairs)


def test_tags_change_neither_records_nor_splits_nor_the_digest(tmp_path: Path) -> None:
    tagged, plain = built(tmp_path / "a", tagged=True), built(tmp_path / "b", tagged=False)
    assert tagged.digest == plain.digest
    assert not (plain.folder / "tags").exists()
    assert {tags["source"] for tags in plain.tags("eval")} == {"d"}


def test_examples_have_the_tags_of_their_records(tmp_path: Path) -> None:
    run = context_of(tmp_path, spec(tagged=True))
    manifest = prepared(run, tmp_path, prepare=prepare)
    tags = read_tags(prepared_tags(run.data_dir, "eval"))
    assert len(tags) == manifest["splits"]["eval"]["records"]
    assert all(tag["source"].startswith("book ") for tag in tags)
    assert not prepared_tags(run.data_dir, "train").exists()
