"""Programs of nobody's: what they may do, and what they may not. Each of them is harmless also where nothing holds it."""

from __future__ import annotations

import os
import time

import pytest

from trainyard.trainer.errors import UserError
from trainyard.trainer.machine import sandbox
from trainyard.trainer.machine.sandbox import check_sandbox, passes

MEMORY = 256 * 2**20


def is_there() -> bool:
    try:
        check_sandbox("field")
    except UserError:
        return False
    return True


isolated = pytest.mark.skipif(not is_there(), reason="this machine refuses namespaces")


def refused(call: str, kind: str = "OSError") -> str:
    return f"try:\n    {call}\nexcept {kind}:\n    pass\nelse:\n    raise AssertionError"


@isolated
@pytest.mark.parametrize(
    ("program", "tests", "passed"),
    [
        ("def add(a, b):\n    return a + b", "assert add(1, 2) == 3", True),
        ("def add(a, b):\n    return a - b", "assert add(1, 2) == 3", False),
        ("import math, json, re, collections", "assert math.sqrt(4) == 2", True),
        ("print('a word')", "", True),
        ("exit(0)", "assert False", False),
        ("import os; os._exit(0)", "assert False", False),
        ("def broken(:", "", False),
        ("import numpy", "", False),
    ],
)
def test_a_program_passes_when_it_comes_to_its_end(program: str, tests: str, passed: bool) -> None:
    assert passes(program, tests, seconds=5, memory=MEMORY) is passed


@isolated
@pytest.mark.parametrize(
    "program",
    [
        "import os\nassert set(os.listdir('/')) <= {'usr', 'lib', 'lib64', 'bin', 'python', 'tmp'}, 'no file of the pod'",
        "import os\nassert os.listdir('/tmp') == [] and os.getcwd() == '/tmp'",
        "import os\nassert os.getuid() == 65534 and os.getpid() == 1, 'nobody, and alone'",
        "import os\nassert not {'PATH', 'HOME', 'TRAINYARD_TOKEN'} & set(os.environ)",
        "import socket\ns = socket.socket()\ns.settimeout(1)\n" + refused("s.connect(('127.0.0.1', 9))"),
        "import socket\nassert [name for _, name in socket.if_nameindex() if name != 'lo'] == []",
        refused("open('/usr/here', 'w')"),
        "import os\n" + refused("os.chroot('/tmp')"),
        "open('/tmp/own', 'w').write('a little')",
    ],
)
def test_what_a_program_sees(program: str) -> None:
    assert passes(program, "", seconds=5, memory=MEMORY)


@isolated
@pytest.mark.parametrize(
    "program",
    [
        "x = bytearray(400 * 2**20)",
        "print('x' * 10**6)",
        "open('/tmp/large', 'w').write('x' * 10**6)",
        "import os, time\nfor _ in range(12):\n    if os.fork() == 0:\n        time.sleep(1)\n        os._exit(0)",
        "x" * (sandbox.LONGEST_PROGRAM + 1),
        "'\0'",
    ],
    ids=["memory", "output", "file", "processes", "length", "nul"],
)
def test_what_is_too_much(program: str) -> None:
    assert not passes(program, "", seconds=5, memory=MEMORY)


@isolated
@pytest.mark.parametrize("program", ["while True:\n    pass", "import time\ntime.sleep(60)"])
def test_a_program_that_does_not_end_is_ended(program: str) -> None:
    began = time.monotonic()
    assert not passes(program, "", seconds=1, memory=MEMORY)
    assert time.monotonic() - began < 1 + sandbox.PATIENCE + 5


def test_without_isolation_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    launcher = tmp_path / "launcher.py"  # type: ignore[operator]
    launcher.write_text("import sys\nsys.stderr.write('unshare: Operation not permitted')\nsys.exit(97)\n")
    monkeypatch.setattr(sandbox, "LAUNCHER", launcher)
    with pytest.raises(OSError, match="not permitted"):
        passes("pass", "", seconds=1, memory=MEMORY)
    with pytest.raises(UserError, match=r"spec\.x: programs cannot be isolated here, and are not run without: unshare"):
        check_sandbox("spec.x")
