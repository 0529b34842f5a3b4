"""`trainyard run --local`: what reaches the trainer, and what is refused before it."""

from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.unit.cli.calling import call
from trainyard.trainer import errors
from trainyard.trainer import local as trainer

QUICKSTART = ROOT / "examples/quickstart/trainingrun.yaml"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Stand where the trainer would start its processes, and write down what it was asked for."""
    seen: list[dict[str, Any]] = []

    def run_local(manifest: Path, workdir: Path, volumes: dict[str, str], *, secrets: Path | None) -> int:
        seen.append({"text": manifest.read_text(), "workdir": workdir, "volumes": volumes, "secrets": secrets})
        return 75

    monkeypatch.setattr(trainer, "run_local", run_local)
    monkeypatch.chdir(tmp_path)
    return seen


def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
    result = call("run", "--local", *arguments, stdin=stdin)
    return result.exit_code, result.output


def test_the_trainer_gets_the_manifest_and_its_code_is_ours(calls: list[dict[str, Any]]) -> None:
    code, _ = run("-f", str(QUICKSTART), "--volume", "data=/srv", "--secrets", "here")
    assert code == 75
    assert calls == [
        {
            "text": QUICKSTART.read_text(),
            "workdir": Path("trainyard/quickstart"),
            "volumes": {"data": "/srv"},
            "secrets": Path("here"),
        }
    ]


def test_standard_input_and_a_folder_of_ones_own(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    code, _ = run("-f", "-", "--workdir", str(tmp_path / "w"), stdin=QUICKSTART.read_text())
    assert code == 75
    assert calls[0]["workdir"] == tmp_path / "w"


@pytest.mark.parametrize(
    ("arguments", "stdin", "code", "part"),
    [
        (("-f", "nowhere.yaml"), "", 2, "cannot read nowhere.yaml"),
        (("-f", str(QUICKSTART), "--volume", "data"), "", 2, "CLAIM=FOLDER"),
        (("-f", str(ROOT / "examples/resume")), "", 2, "name one of them"),
        (("-f", "-"), "kind: Secret\n", 1, "expected a TrainingRun"),
        (("-f", "-"), QUICKSTART.read_text().replace("maxSteps: 300", "maxSteps: 0"), 1, "must be at least 1"),
        (
            ("-f", "-"),
            f"{QUICKSTART.read_text()}---\n{(ROOT / 'examples/lora/trainingrun.yaml').read_text()}",
            2,
            "takes one",
        ),
    ],
)
def test_refused_before_anything_starts(
    arguments: tuple[str, ...], stdin: str, code: int, part: str, calls: list[dict[str, Any]]
) -> None:
    got, output = run(*arguments, stdin=stdin)
    assert got == code
    assert part in output
    assert not calls


def test_what_the_trainer_refuses_is_told_with_its_hint(calls: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> int:
        raise errors.invalid_config("claim data has no folder here", hint="add --volume data=FOLDER")

    monkeypatch.setattr(trainer, "run_local", refuse)
    code, output = run("-f", str(QUICKSTART))
    assert code == 1
    assert output == "trainyard: claim data has no folder here (add --volume data=FOLDER) (exit code 1)\n"
