"""What the prepared data asks for, as it stands in its manifest and later beside the model.

Everything after the prepare step sees ids only. This says what they mean: how a puzzle is written, which augmentation
belongs to it, where a text's answer stands, and what the ids of an answer stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainyard.api.run.trm import TrmTraining
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config

TASK_FILE = "task.json"
TEXT = "Text"


def settings(context: RunContext) -> TrmTraining:
    """spec.training.trm with its defaults."""
    return context.training.trm or TrmTraining()


def masked_id(task: Mapping[str, Any]) -> int | None:
    """The id of padding that attention must not see. Grids are full: theirs is part of the picture."""
    return int(task["padding"]) if task["kind"] == TEXT else None


def check_task(context: RunContext, task: Mapping[str, Any]) -> None:
    """Refuse what a model cannot do with this kind of data.

    Raises:
        UserError: a text for a model that mixes by position.
    """
    trm = context.model.trm
    if trm is not None and trm.mixer == "MLP" and task["kind"] == TEXT:
        raise invalid_config(
            "spec.model.trm.mixer MLP sees every position in the same place, padding included, and its weights grow with "
            "the square of the length: texts need Attention",
            hint="set spec.model.trm.mixer: Attention",
        )
