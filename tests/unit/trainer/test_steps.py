"""The table of steps and kinds of trainings: what it names is there, and every run has a row."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

import trainyard.trainer
from trainyard.api.manifest import parse_run
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.trainer.steps import LANGUAGE, TRM, Family, family_of

PACKAGE = Path(trainyard.trainer.__file__).parent


@pytest.mark.parametrize("family", [LANGUAGE, TRM])
def test_what_a_row_names_is_a_function_of_this_package(family: Family) -> None:
    """Read, not imported: that would take seconds."""
    named = [value for field in fields(family) if isinstance(value := getattr(family, field.name), str)]
    assert len(named) >= 5
    for name in named:
        module, _, function = name.partition(":")
        tree = ast.parse((PACKAGE / f"{module.replace('.', '/')}.py").read_text())
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def spec(**changes: object) -> TrainingRunSpec:
    value = {"datasets": [{"name": "d", "inline": {"text": "x"}}], **changes}
    return parse_run(
        {"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": {"name": "r"}, "spec": value}
    ).spec


def test_the_method_decides_which_row_a_run_has() -> None:
    scratch = {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}}
    sudoku = [{"name": "s", "puzzle": {"kind": "Sudoku", "size": 4}}]
    tiny = spec(model={"trm": {}}, training={"method": "TRM"}, datasets=sudoku)
    assert family_of(tiny) is TRM
    assert family_of(spec(model=scratch, training={"method": "Pretrain"})) is LANGUAGE
    assert family_of(spec(mode="Dataset")) is LANGUAGE
