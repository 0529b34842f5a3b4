"""The command line as a process of this machine, asking the local cluster."""

import os
import subprocess
import sys
from pathlib import Path

from tests import ROOT
from tests.api.server import KUBECONFIG

TOOLS = KUBECONFIG.parent / "bin"
"""Where kubectl is."""


class CommandLine:
    """Verbs in one namespace, called in one folder."""

    def __init__(self, folder: Path, namespace: str) -> None:
        self._folder, self._namespace = folder, namespace
        self._env = os.environ | {
            "KUBECONFIG": str(KUBECONFIG),
            "PATH": f"{TOOLS}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer-image'}",
            "COLUMNS": "120",
        }

    def words(self, verb: str, *words: str) -> list[str]:
        before, after = list(words), []
        if "--" in before:
            place = before.index("--")
            before, after = before[:place], before[place:]
        return [sys.executable, "-m", "trainyard.cli.main", verb, *before, "-n", self._namespace, *after]

    def __call__(self, verb: str, *words: str, code: int = 0, seconds: float = 300) -> str:
        """What it prints to standard output; it has to end with `code`."""
        done = subprocess.run(
            self.words(verb, *words), env=self._env, cwd=self._folder, capture_output=True, text=True, timeout=seconds
        )
        assert done.returncode == code, (
            f"{verb} {' '.join(words)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
        return done.stdout if code == 0 else done.stdout + done.stderr

    def start(self, verb: str, *words: str) -> "subprocess.Popen[str]":
        """For one that goes on."""
        return subprocess.Popen(
            self.words(verb, *words),
            env=self._env,
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
