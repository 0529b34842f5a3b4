"""Calls of kubectl, where a stream to a container is needed, or the API server's whole opinion of a manifest."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from trainyard.cli.exits import Misused, Unreachable

TIMEOUT_SECONDS = 30


def program() -> str:
    """The path of kubectl. Raises Misused."""
    found = shutil.which("kubectl")
    if found is None:
        raise Misused("this needs kubectl on the PATH, and it is not there")
    return found


def kubectl(arguments: Sequence[str], *, namespace: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The ended process, whatever its exit code.

    Raises:
        Misused: kubectl is missing.
        Unreachable: no API server answers.
    """
    inside = ["--namespace", namespace] if namespace else []
    try:
        result = subprocess.run(
            [program(), f"--request-timeout={TIMEOUT_SECONDS}s", *inside, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"no answer from the API server within {2 * TIMEOUT_SECONDS} s") from error
    if result.returncode != 0 and re.search(
        r"refused|no such host|timeout|timed out waiting for the server|current-context|dial tcp", result.stderr
    ):
        raise Unreachable(f"kubectl cannot reach an API server: {tidy(result.stderr)}")
    return result


def tidy(text: str) -> str:
    """kubectl's complaint in one line."""
    return " ".join(text.split()).removeprefix("error: ").removeprefix("Error from server ")
