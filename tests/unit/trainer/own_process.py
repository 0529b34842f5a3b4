"""A process for each case, without the second that Python needs to import everything anew.

Code that reads its settings when it is imported, or that is killed, needs a process of its own. All of them are forked from
one that has imported the trainer and what its hub's client needs, but not that client.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

PARENT = """
import json, os, sys, traceback
import filelock, httpcore2, httpx2, tqdm.auto, yaml
import trainyard.trainer.data.prepare, trainyard.trainer.data.sources, trainyard.trainer.volume.origin
import trainyard.trainer.exports.hub
assert not {"huggingface_hub", "torch"} & set(sys.modules)
for line in sys.stdin:
    case = json.loads(line)
    child = os.fork()
    if not child:
        for number, path in enumerate(case["output"], 1):
            os.dup2(os.open(path, os.O_WRONLY), number)
        os.environ.clear()
        os.environ.update(case["environment"])
        sys.argv[1:] = case["arguments"]
        code = 1
        try:
            exec(case["program"], {"__name__": "__main__"})
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _parent() -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    started = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def end() -> None:
        started.kill()
        started.communicate()

    atexit.register(end)
    return started


def run(program: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """As `python -c program arguments` in this environment."""
    parent = _parent()
    assert parent.stdin is not None
    assert parent.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        output = [Path(folder, name) for name in ("out", "err")]
        for path in output:
            path.touch()
        case = {"program": program, "arguments": arguments, "environment": dict(environment)}
        parent.stdin.write(json.dumps({**case, "output": list(map(str, output))}) + "\n")
        parent.stdin.flush()
        code = int(parent.stdout.readline())
        return subprocess.CompletedProcess([program, *arguments], code, *(path.read_text() for path in output))
