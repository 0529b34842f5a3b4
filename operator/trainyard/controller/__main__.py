"""`python -m trainyard.controller`: the operator."""

import asyncio
import logging
import os
import sys

from trainyard.controller import logs
from trainyard.controller.app import CannotStart, run
from trainyard.controller.settings import InvalidSettings, Settings, misspelled

log = logging.getLogger("trainyard.controller")


def main() -> int:
    """0 after a signal, 1 when it cannot start or a part has failed for good."""
    try:
        settings = Settings.from_environment(os.environ)
    except InvalidSettings as error:
        print(f"invalid settings:\n{error}", file=sys.stderr)
        return 1
    logs.configure(level=settings.log_level, format=settings.log_format)
    for warning in misspelled(os.environ):
        log.warning(warning)
    try:
        return asyncio.run(run(settings))
    except CannotStart as error:
        log.critical("%s", error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
