"""The cluster's command: `python3 tools/cluster up|down|status|load|images|...`; see README.md here."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from cluster.commands import main

    sys.exit(main(sys.argv[1:]))
