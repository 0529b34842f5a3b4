"""The program, called inside the test's own process."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from unittest.mock import patch

from trainyard.cli.main import call as call_program


@dataclass(frozen=True)
class Result:
    """What the program has printed and how it ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


def call(*words: str, stdin: str | None = None, name: str = "trainyard") -> Result:
    """`words` are those after its name."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), patch.object(sys, "stdin", io.StringIO(stdin or "")):
        try:
            code = call_program(words, name=name)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Result(code, out.getvalue(), err.getvalue())
