"""What Flux makes of an object, by the library that Flux links (tests/kstatus)."""

import json
import os
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests import ROOT
from tests.e2e.kube import Found
from tests.e2e.measure import FOLDER

SOURCE = ROOT / "tests" / "kstatus"


@cache
def program() -> Path:
    """The reader, built once; Go's own cache makes the next builds quick."""
    binary = FOLDER.parent / "bin" / "kstatus"
    binary.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly -buildvcs=false"}
    command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(binary), "."]
    done = subprocess.run(command, cwd=SOURCE, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return binary


def readings(objects: Sequence[Found]) -> list[str]:
    """InProgress, Current, Failed or Terminating for each object."""
    text = "\n".join(json.dumps(o) for o in objects)
    done = subprocess.run([str(program())], input=text, capture_output=True, text=True, check=True)
    return [json.loads(line)["status"] for line in done.stdout.splitlines()]
