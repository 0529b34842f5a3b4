"""Which checkpoint a run goes on from, and which ones it lets go."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.volume import checkpoint


def save(root: Path, *steps: int) -> None:
    for step in steps:
        checkpoint.save(root, step, lambda folder, step=step: (folder / "weights").write_text(f"w{step}") and None)


def test_the_newest_is_found(tmp_path: Path) -> None:
    save(tmp_path, 5, 100, 20)
    found = checkpoint.newest_valid(tmp_path)
    assert found is not None
    assert found.step == 100
    assert found.path.name == "step-00000100"


def test_there_is_none_at_the_beginning(tmp_path: Path) -> None:
    assert checkpoint.newest_valid(tmp_path / "checkpoints") is None


def test_a_damaged_one_is_passed_over_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path, 5, 10, 15)
    (tmp_path / "step-00000015" / "weights").write_text("xxx")
    (tmp_path / "step-00000010" / "manifest.json").write_text("{")
    found = checkpoint.newest_valid(tmp_path)
    assert found is not None
    assert found.step == 5
    printed = capsys.readouterr().out
    assert "step-00000015 is damaged and passed over: weights has been changed" in printed
    assert "step-00000010 is damaged and passed over: its manifest.json cannot be read" in printed


def test_when_all_are_damaged_the_run_fails_instead_of_starting_over(tmp_path: Path) -> None:
    save(tmp_path, 5, 10)
    for folder in tmp_path.iterdir():
        (folder / "weights").unlink()
    with pytest.raises(UserError) as caught:
        checkpoint.newest_valid(tmp_path)
    assert caught.value.exit_code == ExitCode.STORAGE
    assert "none of the 2 checkpoints" in caught.value.message
    assert "step-00000010: weights is missing" in caught.value.message
    assert "delete that folder" in caught.value.hint


def test_what_a_killed_save_left_is_never_read_and_goes(tmp_path: Path) -> None:
    save(tmp_path, 5)
    unfinished = tmp_path / ".tmp-step-00000010"
    unfinished.mkdir()
    (unfinished / "weights").write_text("half")
    found = checkpoint.newest_valid(tmp_path)
    assert found is not None
    assert found.step == 5
    assert not unfinished.exists()


def test_a_whole_checkpoint_is_not_written_again(tmp_path: Path) -> None:
    save(tmp_path, 5)
    before = (tmp_path / "step-00000005" / "weights").stat().st_ino
    save(tmp_path, 5)
    assert (tmp_path / "step-00000005" / "weights").stat().st_ino == before


def test_a_torn_checkpoint_is_written_again(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (tmp_path / "step-00000005" / "weights").write_text("")
    save(tmp_path, 5)
    assert (tmp_path / "step-00000005" / "weights").read_text() == "w5"


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 10)
    assert checkpoint.prune(tmp_path, 2) == [2, 1]
    assert [c.step for c in checkpoint.listed(tmp_path)] == [10, 3]


def test_the_record_is_relative_to_the_volume(tmp_path: Path) -> None:
    save(tmp_path / "run-1" / "checkpoints", 5)
    found = checkpoint.newest_valid(tmp_path / "run-1" / "checkpoints")
    assert found is not None
    assert found.record(tmp_path).path == "run-1/checkpoints/step-00000005"
    assert found.record(tmp_path).bytes == 2


class TestAnotherRunsCheckpoint:
    @pytest.fixture
    def volume(self, tmp_path: Path) -> Path:
        save(tmp_path / "other-00000001" / "checkpoints", 10)
        save(tmp_path / "other-00000002" / "checkpoints", 20)
        os.utime(tmp_path / "other-00000001", (1, 1))
        save(tmp_path / "other-big-00000003" / "checkpoints", 30)
        (tmp_path / "own-00000009").mkdir()
        return tmp_path

    @pytest.mark.parametrize(
        ("reference", "step"),
        [
            ("other", 20),
            ("other-big", 30),
            ("other-00000001", 10),
            ("/other-00000001/checkpoints", 10),
            ("other-00000001/checkpoints/step-00000010", 10),
        ],
    )
    def test_is_found_by_name_or_path(self, volume: Path, reference: str, step: int) -> None:
        assert checkpoint.find_other(reference, volume=volume, own=volume / "own-00000009").step == step

    def test_an_unknown_one_names_what_is_there(self, volume: Path) -> None:
        with pytest.raises(UserError) as caught:
            checkpoint.find_other("othr", volume=volume, own=volume / "own-00000009")
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert "resumeFrom 'othr'" in caught.value.message
        assert "other-00000001, other-00000002, other-big-00000003" in caught.value.hint

    def test_does_not_leave_the_volume(self, volume: Path) -> None:
        with pytest.raises(UserError, match="leaves the volume"):
            checkpoint.find_other("../secret", volume=volume, own=volume)

    def test_damaged_is_an_error(self, volume: Path) -> None:
        (volume / "other-00000001/checkpoints/step-00000010/weights").unlink()
        with pytest.raises(UserError, match="weights is missing"):
            checkpoint.find_other(
                "other-00000001/checkpoints/step-00000010", volume=volume, own=volume / "own-00000009"
            )


def test_too_old_ones_go_but_never_the_newest_or_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        checkpoint.save(tmp_path, step, lambda folder: {"best": {"step": 2, "evalLoss": 1.5}})
    assert checkpoint.prune(tmp_path, 4, max_age_days=1) == []
    for step in (1, 2, 3, 4):
        file = tmp_path / f"step-{step:08d}" / "manifest.json"
        manifest = json.loads(file.read_text())
        file.write_text(json.dumps({**manifest, "time": "2020-01-01T00:00:00Z"}))
    assert checkpoint.prune(tmp_path, 4, max_age_days=1) == [3, 1]
    assert [c.step for c in checkpoint.listed(tmp_path)] == [4, 2]
    assert checkpoint.prune(tmp_path, 1) == []
