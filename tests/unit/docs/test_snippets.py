"""Commands that people of other systems are used to, as they are printed there."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import ROOT
from tests.unit.cli.calling import call

COMMITTEE = ROOT / "examples/committee"


def managed(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A line of a shell in the example's folder; trainyard only says what it was asked."""
    program = folder / "trainyard"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(["sh", "-c", line], cwd=COMMITTEE, env=env, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        ("./manage.sh start", "run -f ./trainingrun.yaml --name committee"),
        ("./manage.sh start --debug", "run -f ./trainingrun.yaml --name committee --debug"),
        ("./manage.sh start --phase pretrain", "run -f ./trainingrun.yaml --name committee --phase pretrain"),
        ("./manage.sh status", "status committee"),
        ("./manage.sh logs", "logs -f committee"),
        ("./manage.sh stop", "stop committee"),
        ("./manage.sh resume", "resume committee"),
        ("./manage.sh resume /checkpoints/step-10000", "resume committee --from /checkpoints/step-10000"),
        ("./manage.sh shell", "shell committee"),
        ("RUN=other ./manage.sh status -n lab", "status other -n lab"),
    ],
)
def test_the_committees_manage_sh(line: str, asked: str, tmp_path: Path) -> None:
    done = managed(line, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, asked), done.stderr
    verb, *words = asked.split()
    known = call(verb, "--help").stdout
    for word in words:
        if word.startswith("-"):
            assert word in known, f"trainyard {verb} has no {word}"


def test_the_committees_manage_sh_says_what_there_is(tmp_path: Path) -> None:
    done = managed("./manage.sh frobnicate", tmp_path)
    assert done.returncode == 64
    assert "resume [/checkpoints/step-10000]" in done.stderr
