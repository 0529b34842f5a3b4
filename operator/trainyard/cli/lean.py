"""What a verb that reads manifests does first: most of its time is pydantic's, and some of that is for nothing here."""

import gc
import os
import sys
from types import ModuleType

YOUNG = 100_000
"""Objects between two collections. Models are some tens of thousands, and live as long as the program."""


def import_lean() -> None:
    """Before the first import of pydantic.

    It looks for plugins in every installed distribution, and the reader of their metadata alone takes as long as that of YAML;
    there are none that this program needs. Where pydantic looks for them elsewhere one day, this is without effect.
    """
    gc.set_threshold(YOUNG)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    nothing = ModuleType("pydantic.plugin._loader")
    vars(nothing)["get_plugins"] = tuple
    sys.modules.setdefault(nothing.__name__, nothing)
