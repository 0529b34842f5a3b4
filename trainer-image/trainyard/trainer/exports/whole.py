"""Targets that want a whole language model in `model/`."""

from __future__ import annotations

from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config


def check_whole(context: RunContext, *, field: str) -> None:
    """Refuse, before the training, what will be no such model.

    Raises:
        UserError: a Tiny Recursive Model is trained, or only an adapter is kept.
    """
    if context.model.trm is not None:
        raise invalid_config(
            f"{field}: a Tiny Recursive Model is no language model, and this target knows nothing else",
            hint="hand out its folder (s3, hub)",
        )
    adapter = context.model.adapter
    if adapter is not None and not adapter.merge:
        raise invalid_config(
            f"{field} needs a whole model, and spec.model.adapter.merge is false",
            hint="set spec.model.adapter.merge: true; the adapter is kept beside the model",
        )
