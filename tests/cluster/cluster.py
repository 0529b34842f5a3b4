"""The test cluster's command: `python3 tests/cluster/cluster.py up|down|status|load|images|...`; see README.md here."""

from __future__ import annotations

import sys

from driver.commands import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
