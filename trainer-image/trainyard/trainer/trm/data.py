"""The prepared data, opened by the steps that follow."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

from trainyard.trainer import __version__
from trainyard.trainer.commit import Committed, find_damage, read_committed
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import note_dataset
from trainyard.trainer.errors import invalid_config, storage
from trainyard.trainer.trm.prepare import specification_key


def open_data(context: RunContext) -> Committed:
    """The committed folder.

    Raises:
        UserError: there is none, it is damaged, or it was made from another specification.
    """
    data = read_committed(context.data_dir)
    if data is None:
        raise storage(f"there is no prepared data in {context.data_dir}", hint="run the prepare step first")
    if (damage := find_damage(data, hashes=False)) is not None:
        raise storage(
            f"the prepared data in {context.data_dir} is damaged: {damage}", hint="delete it and prepare again"
        )
    if data.manifest["key"] != specification_key(context):
        raise invalid_config(
            f"the prepared data in {context.data_dir} was made from other datasets or another task",
            hint="run the prepare step again, or use another metadata.name",
        )
    note_dataset(data)
    return data


def provenance(context: RunContext) -> dict[str, Any]:
    """What has to be the same for the same result."""
    return {
        "trainerVersion": __version__,
        "torch": version("torch"),
        "python": platform.python_version(),
        "seed": context.training.seed,
    }
