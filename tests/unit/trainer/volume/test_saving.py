"""The thread that saves, the copy that it saves from, and the room on the volume."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from trainyard.trainer.errors import UserError
from trainyard.trainer.volume import space


@pytest.fixture
def saving() -> ModuleType:
    """Imported here, so that torch is loaded only where these tests run."""
    pytest.importorskip("torch")
    return import_module("trainyard.trainer.volume.saving")


def test_the_caller_goes_on_while_it_saves_and_a_second_save_waits(saving: ModuleType) -> None:
    allowed, saved = threading.Event(), []

    def commit(step: int, write: object) -> None:
        assert allowed.wait(30)
        saved.append(step)

    saver = saving.Saver(commit)
    saver.begin(1, lambda folder: None)
    assert saved == []
    saver.check()
    allowed.set()
    saver.begin(2, lambda folder: None)
    assert saved[0] == 1, "one at a time"
    saver.wait()
    assert saved == [1, 2]
    saver.save(3, lambda folder: None)
    assert saved == [1, 2, 3]


def test_a_failure_in_the_thread_is_raised_once_to_the_caller(saving: ModuleType) -> None:
    def commit(step: int, write: object) -> None:
        raise OSError(28, "No space left on device")

    saver = saving.Saver(commit)
    saver.begin(1, lambda folder: None)
    with pytest.raises(OSError, match="No space left"):
        saver.wait()
    saver.wait()
    saver.begin(2, lambda folder: None)
    saver.finish()  # somebody leaves with an error of their own
    with pytest.raises(OSError, match="No space left"):
        saver.wait()


def test_a_copy_is_independent_and_keeps_tied_tensors_tied(saving: ModuleType) -> None:
    import torch

    weight = torch.ones(3, 2)
    state = {"embedding": weight, "head": weight, "groups": [{"lr": 0.1}], "moments": (weight * 2, weight[0])}
    copy = saving.copied(state)
    weight.zero_()
    assert copy["embedding"].sum() == 6
    assert copy["embedding"].data_ptr() == copy["head"].data_ptr()
    assert copy["groups"] == [{"lr": 0.1}]
    assert copy["moments"][0].sum() == 12
    assert saving.size_of(state) == 4 * (6 + 6 + 6 + 2)


def test_the_room_that_a_run_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    need = space.needed(saved=100, optimizer=200, result=50, saves=50, keep_last=3, keeps_best=True)
    assert need.checkpoints == 5, "three, the best, and the one that is being written"
    assert need.total == 5 * (300 + space.OTHER_FILES) + 50
    few = space.needed(saved=100, optimizer=200, result=50, saves=2, keep_last=3, keeps_best=True)
    assert few.checkpoints == 2, "a short run makes no more than it makes"
    space.check(need, tmp_path)
    assert "5 checkpoints of about 0.1 MB" in capsys.readouterr().out


def test_a_volume_that_is_too_small_is_told_before_the_first_step(tmp_path: Path) -> None:
    need = space.needed(saved=1 << 50, optimizer=0, result=0, saves=9, keep_last=3, keeps_best=False)
    with pytest.raises(UserError, match="4 checkpoints of about 1125899") as raised:
        space.check(need, tmp_path)
    assert raised.value.exit_code == 74
    assert "spec.storage.checkpoints.size" in raised.value.hint
