"""The program as a whole: help, version, refusals of the command line, exit codes, and what a verb costs."""

import subprocess
import sys
from unittest.mock import patch

import pytest

from tests import ROOT
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster
from trainyard.cli.catalogue import OTHER_NAMES, VERBS, module_of
from trainyard.cli.exits import Exit
from trainyard.cli.main import main


def test_help_lists_the_verbs_at_eighty_columns() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for verb in VERBS:
        assert f"\n  {verb} " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_without_a_verb_the_help_is_shown_and_the_call_was_wrong() -> None:
    result = call()
    assert (result.exit_code, result.stdout) == (2, call("--help").stdout)


def test_version_names_the_api() -> None:
    assert "(API trainyard.dev/v1alpha1)" in call("version").stdout


@pytest.mark.parametrize(
    ("called_as", "shown"),
    [("trainyard", "trainyard"), ("/bin/kubectl-trainyard", "kubectl trainyard"), ("x.py", "trainyard")],
)
@pytest.mark.parametrize("words", [["--help"], ["logs", "--help"]])
def test_it_calls_itself_as_it_was_called(
    called_as: str, shown: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called_as, *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"Usage: {shown} ")


@pytest.mark.parametrize("name", VERBS)
def test_a_verbs_line_in_the_list_is_how_its_own_help_begins(name: str) -> None:
    assert (module_of(name).call.__doc__ or "").splitlines()[0] == VERBS[name].sentence


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_has_its_own_help_at_eighty_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    result = call(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: trainyard {name} ")
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("name", [*VERBS, "--help"])
def test_no_verb_needs_anything_slow_before_it_does_something(name: str) -> None:
    slow = ("pydantic", "yaml", "kubernetes", "kopf", "aiohttp", "typer", "rich", "cronsim")
    words = [name] if name == "--help" else [name, "--help"]
    code = f"import sys; from tests.unit.cli.calling import call; call(*{words}); print([m for m in {slow} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_validate_imports_nothing_that_it_does_not_need() -> None:
    needless = (
        "importlib.metadata",
        "trainyard.api.schedule.trainingschedule",
        "trainyard.client.transport",
    )
    code = f"import sys; from trainyard.cli.main import call; call(sys.argv[1:]); print([m for m in {needless} if m in sys.modules])"
    words = ("validate", "-f", "examples/quickstart/trainingrun.yaml")
    found = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("short", "long"), OTHER_NAMES.items())
def test_a_verb_answers_to_what_others_call_it(short: str, long: str) -> None:
    assert call(short, "--help").stdout == call(long, "--help").stdout


def test_a_misspelt_verb_is_answered_with_the_right_one() -> None:
    result = call("valdate")
    assert result.exit_code == 2
    assert result.stderr == "trainyard: there is no verb 'valdate'; did you mean 'validate'? (exit code 2)\n"


def test_errors_and_next_commands_have_the_name_it_was_called_by(cluster: FakeCluster) -> None:
    assert call("logs", "nobody", name="kubectl trainyard").stderr.startswith(
        "kubectl trainyard: there is no TrainingRun"
    )
    cluster.run(state="Training")
    assert "\nNext: kubectl trainyard status runbook\n" in call("stop", "runbook", name="kubectl trainyard").stdout


def test_options_may_stand_before_the_verb(cluster: FakeCluster) -> None:
    cluster.run()
    assert call("-n", "lab", "list").stdout == call("list", "-n", "lab").stdout != ""


def test_an_unknown_option_is_wrong_use() -> None:
    result = call("list", "--colour")
    assert result.exit_code == 2
    assert "unrecognized arguments: --colour" in result.stderr
    assert "Try 'trainyard list --help'" in result.stderr


@pytest.mark.parametrize(
    ("status", "code"), [(403, 4), (401, 4), (404, 3), (422, 1), (500, 5), (503, 5)], ids=lambda v: str(v)
)
def test_what_the_api_server_refuses_has_its_exit_code(status: int, code: int, cluster: FakeCluster) -> None:
    cluster.refused["GET /apis/trainyard.dev"] = (status, "said so")
    result = call("list")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith("trainyard: ")
    assert result.stderr.endswith(f"(exit code {code})\n")
    assert "secret-token" not in result.output


def test_a_cluster_that_is_away_has_its_exit_code(cluster: FakeCluster) -> None:
    cluster.kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.url, "http://127.0.0.1:1"))
    result = call("list")
    assert result.exit_code == 5
    assert "cannot reach http://127.0.0.1:1 (context here): Connection refused; is the cluster up" in result.stderr


def test_a_missing_kubeconfig_is_wrong_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config")
    result = call("list")
    assert result.exit_code == 2
    assert "there is no kubeconfig at /nowhere/config: set KUBECONFIG, or give --kubeconfig FILE" in result.stderr


def test_a_run_that_is_not_there_says_how_to_see_those_that_are(cluster: FakeCluster) -> None:
    result = call("status", "nobody")
    assert result.exit_code == 3
    assert "there is no TrainingRun 'nobody' in namespace lab: trainyard list -A shows" in result.stderr


def test_the_keyboard_interrupts(cluster: FakeCluster) -> None:
    cluster.run(state="Training")
    with patch("trainyard.client.runs.Runs.watch", side_effect=KeyboardInterrupt):
        assert call("wait", "runbook").exit_code == 130


def test_the_page_of_the_command_line_speaks_of_every_verb_and_exit_code() -> None:
    page = (ROOT / "docs/use/cli.md").read_text()
    assert not [verb for verb in VERBS if f"`{verb}" not in page]
    assert not [code for code in Exit if f"| {int(code)} |" not in page]
