"""Records of what the local cluster says about faults that are planted in it.

    python benchmarks/incidents.py incidents.jsonl --each 16

Each is an event with the runbook's heading as its solution: the data of the task in docs/use/trm.md. Plants every fault of
`tests/e2e/incidents.py` so many times in a namespace of its own, and removes that at the end.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WAVE = 4
"""Faults of each kind at a time: nodes have room for so many pods only."""


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--each", type=int, default=16)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from tests.api.server import ApiServer
    from tests.e2e import incidents
    from tests.e2e.kube import Kube

    from trainyard.controller.kube.resources import NAMESPACES

    kube = Kube(ApiServer())
    with open(options.output, "w", encoding="utf-8") as stream:
        for first in range(0, options.each, WAVE):
            space = incidents.new_space(kube)
            try:
                planted = incidents.plant(kube, space, each=min(WAVE, options.each - first), first=first)
                for record in incidents.told(kube, space, planted, seconds=240):
                    stream.write(json.dumps(record) + "\n")
            finally:
                kube.delete(NAMESPACES, None, space)


if __name__ == "__main__":
    main()
