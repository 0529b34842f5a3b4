"""The card of a result: what a hub reads at its head, and nothing that is nobody's business."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.trainer.run_contexts import context_of
from trainyard.trainer.context import RunContext
from trainyard.trainer.models.card import licence_of, model_card
from trainyard.trainer.volume.commit import commit_folder


def context(tmp_path: Path) -> RunContext:
    model = {"storageUri": "hf://org/base@v1", "secretRef": {"name": "hub"}}
    data = [{"name": "corpus", "storageUri": "s3://secret-bucket/a.jsonl", "secretRef": {"name": "keys"}}]
    made = context_of(tmp_path, {"model": model, "datasets": data, "training": {"method": "SFT"}})

    def fill(folder: Path) -> dict[str, Any]:
        (folder / "train").mkdir()
        (folder / "train" / "corpus.jsonl").write_text("{}")
        return {"datasets": [{"name": "corpus", "records": 7, "source": "s3://secret-bucket/a.jsonl"}]}

    commit_folder(made.work_dir / "dataset", fill)
    return made


def test_base_data_method_numbers_and_provenance(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# base\n")
    made = context(tmp_path)
    metrics = {"training loss": 1.5, "held-out loss": 1.25}
    card = model_card(made, title="r", step=30, digest="d1", metrics=metrics, base=base)
    _, head, text = card.split("---\n", 2)
    values = yaml.safe_load(head)
    assert (values["base_model"], values["license"]) == ("org/base", "apache-2.0")
    (result,) = values["model-index"][0]["results"]
    assert result["metrics"] == [{"name": "held-out loss", "type": "loss", "value": 1.25}]
    assert "| base model | org/base at v1 |" in text
    assert "| corpus | 7 | sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a |" in text
    assert "| training loss | 1.5 |" in text
    for secret in ("secret-bucket", "s3://", str(tmp_path), "keys"):
        assert secret not in card


def test_the_hub_reads_its_head(tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    read = ModelCard(model_card(context(tmp_path), title="r", step=1, digest="d", metrics={"held-out loss": 2.0}))
    assert read.data.base_model == "org/base"
    assert read.data.eval_results[0].metric_value == 2.0


def test_what_an_evaluation_has_measured(tmp_path: Path) -> None:
    made = context(tmp_path)
    made.evaluation_dir.mkdir()
    found: dict[str, object] = {
        "split": "eval",
        "records": 9,
        "metrics": {"loss": 1.0, "exactMatch": 0.75},
        "passed": True,
    }
    (made.evaluation_dir / "metrics.json").write_text(json.dumps(found))
    card = model_card(made, title="r", step=1, digest="d")
    assert "| loss | 1 |\n| exactMatch | 0.75 |" in card
    assert "passed" not in card
    assert "| records | 9 |" not in card
    (made.evaluation_dir / "metrics.json").write_text(json.dumps(found | {"baseline": {"exactMatch": 0.25}}))
    card = model_card(made, title="r", step=1, digest="d")
    assert "| | after | before training |" in card
    assert "| loss | 1 |  |\n| exactMatch | 0.75 | 0.25 |" in card


@pytest.mark.parametrize("readme", ["", "---\n[\n---\n", "---\nlicense: [a]\n---\n", "---\nlicense: 'a\\n# b'\n---\n"])
def test_a_licence_that_is_none_is_left_out(readme: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(readme)
    assert licence_of(tmp_path) is None
