"""Calls of kubectl, which already knows every way to log in to a cluster (exec plugins, client certificates, proxies)."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from trainyard.cli.exits import Misused

TIMEOUT_SECONDS = 30


class NoKubectl(Misused):
    """kubectl is not installed, or cannot reach a cluster."""


def kubectl(arguments: Sequence[str], *, namespace: str = "", stdin: str = "") -> subprocess.CompletedProcess[str]:
    """The ended process, whatever its exit code.

    Raises:
        NoKubectl: kubectl is missing, or no API server answers.
    """
    program = shutil.which("kubectl")
    if program is None:
        raise NoKubectl("this needs kubectl on the PATH, and it is not there")
    inside = ["--namespace", namespace] if namespace else []
    try:
        result = subprocess.run(
            [program, f"--request-timeout={TIMEOUT_SECONDS}s", *inside, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NoKubectl(f"no answer from the API server within {2 * TIMEOUT_SECONDS} s") from error
    if result.returncode != 0 and re.search(
        r"refused|no such host|timeout|timed out waiting for the server|current-context|dial tcp", result.stderr
    ):
        raise NoKubectl(f"kubectl cannot reach an API server: {tidy(result.stderr)}")
    return result


def tidy(text: str) -> str:
    """kubectl's complaint in one line."""
    return " ".join(text.split()).removeprefix("error: ").removeprefix("Error from server ")
