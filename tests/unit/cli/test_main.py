"""The program as a whole: help, version, and refusals of the command line."""

import subprocess
import sys

import pytest

from tests import ROOT
from tests.unit.cli.calling import call
from trainyard.cli.main import VERBS, main, verb


def test_help_lists_the_verbs() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in ("validate", "run", "run-now", "version"):
        assert command in result.output


def test_version_names_the_api() -> None:
    assert "(API trainyard.dev/v1alpha1)" in call("version").output


def test_run_without_local_says_what_to_do() -> None:
    result = call("run", "-f", "x.yaml")
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
        main()
    assert ended.value.code == 0
    assert f"Usage: {shown} " in capsys.readouterr().out


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_line_in_the_list_is_how_its_own_help_begins(name: str) -> None:
    assert (verb(name).__doc__ or "").splitlines()[0] == VERBS[name]


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_has_its_own_help(name: str) -> None:
    result = call(name, "--help")
    assert result.exit_code == 0
    assert f"Usage: root {name} " in result.output


def test_a_verb_that_is_not_called_is_not_imported() -> None:
    code = (
        "import sys; from tests.unit.cli.calling import call; "
        "call('--help'); print('pydantic' in sys.modules); call('validate', '-h'); print('pydantic' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]


def test_a_misspelt_verb_is_answered_with_the_right_one() -> None:
    result = call("valdate")
    assert result.exit_code == 2
    assert "Did you mean 'validate'" in result.output
