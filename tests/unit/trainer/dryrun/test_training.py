"""What the dry run says about a training's length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.trainer.run_contexts import context_of
from trainyard.trainer.dryrun.validate import describe_training


@pytest.mark.parametrize(("warmup", "told"), [(100, True), (3, False), (0.5, False)])
def test_a_warm_up_that_is_longer_than_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], warmup: float, told: bool
) -> None:
    spec = {
        "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
        "datasets": [{"name": "d", "inline": {"text": "x"}}],
        "training": {"method": "Pretrain", "maxSteps": 3, "warmupSteps": warmup},
    }
    describe_training(context_of(tmp_path, spec), {"splits": {"train": {"tokens": 1000, "examples": 10}}})
    said = "warning: spec.training.warmupSteps 100 is more than the 3 steps of the training: its learning rate is never reached\n"
    assert (capsys.readouterr().out == said) is told
