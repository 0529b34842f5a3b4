"""The program as a whole: help, version, and refusals of the command line."""

import sys

import pytest
from typer.testing import CliRunner

from trainyard.cli import main as program


def test_help_lists_the_commands() -> None:
    result = CliRunner().invoke(program.app, ["--help"])
    assert result.exit_code == 0
    for command in ("validate", "run", "version"):
        assert command in result.output


def test_version_names_the_api() -> None:
    assert "(API trainyard.dev/v1alpha1)" in CliRunner().invoke(program.app, ["version"]).output


def test_run_without_local_says_what_to_do() -> None:
    result = CliRunner().invoke(program.app, ["run", "-f", "x.yaml"])
    assert result.exit_code == 2
    assert "kubectl apply -f x.yaml" in result.output


@pytest.mark.parametrize(
    ("called_as", "shown"),
    [("trainyard", "trainyard"), ("/bin/kubectl-trainyard", "kubectl trainyard"), ("x.py", "trainyard")],
)
def test_it_calls_itself_as_it_was_called(
    called_as: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called_as, "--help"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0
    assert f"Usage: {shown} " in capsys.readouterr().out
