"""Runs a Python program that nobody trusts: without network, without the files of the pod, with little time and memory.

    this process  ->  launcher (sandbox_launcher.py)  ->  namespaces, an empty root, limits  ->  the bare interpreter

The launcher is a process of its own, because a process with threads cannot enter a user namespace. What the program may see is
the interpreter with its standard library, read-only, and an empty folder of a megabyte. Where the kernel or the pod's seccomp profile
refuses namespaces there is no sandbox, and no program is run.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from trainyard.trainer.errors import invalid_config

LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")
LONGEST_PROGRAM = 64 * 1024
"""Characters."""
PATIENCE = 10.0
"""Seconds beside those of the program: two interpreters start for each, on a machine that may be busy."""
NOT_ISOLATED = 97
"""Exit code of the launcher when it could not isolate."""
_PROBE = "import os; assert set(os.listdir('/')) <= {'usr', 'lib', 'lib64', 'bin', 'python', 'tmp'}"


def passes(program: str, tests: str, *, seconds: float, memory: int) -> bool:
    """Whether a program, and the tests behind it, come to their end without an error.

    Args:
        seconds: of processor time, and of the clock beyond what starting takes.
        memory: bytes.

    Raises:
        OSError: it could not be isolated, and was not run.
    """
    if len(program) + len(tests) > LONGEST_PROGRAM or "\0" in program + tests:
        return False
    # A program that leaves early, or calls exit(0), has not come to the end: only that writes the word.
    word = secrets.token_hex(16)
    source = f"{program}\n\n{tests}\n\n__import__('os').write(1, b'{word}')\n"
    command = [sys.executable, "-I", "-S", str(LAUNCHER), str(max(1, int(seconds))), str(memory)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={}, start_new_session=True
    ) as process:
        try:
            said, faults = process.communicate(source.encode("utf-8", "replace"), timeout=seconds + PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return False
    if process.returncode == NOT_ISOLATED:
        raise OSError(faults.decode(errors="replace").strip() or "the launcher failed")
    return process.returncode == 0 and word.encode() in said


def check_sandbox(field: str) -> None:
    """Raises UserError: programs cannot be isolated here."""
    try:
        works = passes(_PROBE, "", seconds=5, memory=256 * 2**20)
        why = "a program that does nothing fails in it"
    except OSError as error:
        works, why = False, str(error)
    if not works:
        raise invalid_config(
            f"{field}: programs cannot be isolated here, and are not run without: {why}",
            hint="the pod needs user namespaces (a seccomp profile that allows unshare and mount, in spec.podTemplate); or let a service "
            "of your own judge (http)",
        )
