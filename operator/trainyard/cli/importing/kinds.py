"""Which trainer a configuration is for."""

from collections.abc import Mapping
from typing import Any

from trainyard.cli.exits import Refused
from trainyard.cli.importing import axolotl, homelab, llamafactory, tunix
from trainyard.cli.importing.reading import Reading

KINDS = {"homelab": homelab, "tunix": tunix, "llamafactory": llamafactory, "axolotl": axolotl}
"""In the order in which they are asked."""


def imported(config: Mapping[str, Any], *, kind: str, claim: str) -> tuple[str, Reading]:
    """The trainer's name, and what was made of its configuration.

    Raises:
        Refused: it is for none of them, or asks for something that there is not.
    """
    found = kind or next((name for name, module in KINDS.items() if module.is_one(config)), "")
    if not found:
        keys = ", ".join(list(config)[:8])
        raise Refused(f"this is no configuration of {', '.join(KINDS)} (it has {keys}): say which with --from")
    reading = Reading(config, claim=claim)
    KINDS[found].read(reading)
    return found, reading
