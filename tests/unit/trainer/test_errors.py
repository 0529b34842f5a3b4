"""Every way to end has its exit code, and says what to do."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from trainyard.api.conditions import Reason
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.context import attempt_number, read_context, termination_log
from trainyard.trainer.errors import UNEXPECTED, UserError, describe, invalid_config
from trainyard.trainer.reporter import Reporter, write_final_record


def test_a_full_disk_is_found_below_other_errors() -> None:
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/trainyard/checkpoints/x")
        except OSError as error:
            raise RuntimeError("saving failed") from error
    except RuntimeError as error:
        fault = describe(error)
    assert fault.exit_code == ExitCode.STORAGE
    assert fault.message.startswith("no space is left at /trainyard/checkpoints/x")
    assert "spec.storage.checkpoints.size" in fault.hint


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (OSError(errno.EDQUOT, "quota"), ExitCode.STORAGE, Reason.STORAGE),
        (OSError(errno.EIO, "io"), ExitCode.STORAGE, Reason.STORAGE),
        (PermissionError(errno.EACCES, "denied", "/x"), ExitCode.STORAGE, Reason.STORAGE),
        (RuntimeError("[enforce fail] No space left on device"), ExitCode.STORAGE, Reason.STORAGE),
        (
            Exception("Error while serializing: I/O error: Disk quota exceeded (os error 122)"),
            ExitCode.STORAGE,
            Reason.STORAGE,
        ),
        (MemoryError(), UNEXPECTED, Reason.HOST_OUT_OF_MEMORY),
        (ZeroDivisionError("division by zero"), UNEXPECTED, Reason.ERROR),
        (FileNotFoundError(errno.ENOENT, "no such file", "/x"), UNEXPECTED, Reason.ERROR),
        (invalid_config("spec.x 3 is wrong"), ExitCode.INVALID_CONFIG, Reason.INVALID_CONFIG),
    ],
)
def test_exit_codes(error: BaseException, code: int, reason: Reason) -> None:
    fault = describe(error)
    assert fault.exit_code == code
    assert fault.reason == reason
    assert fault.message


def test_the_final_record_fits_and_is_written(tmp_path: Path) -> None:
    reporter = Reporter("prepare", 3)
    reporter.report(step_number=7, metrics={"loss": 1.5}, timings={"imports": 1.0})
    reporter.report(metrics={"eval_loss": 2.5}, timings={"load": 2.0})
    fault = UserError("x" * 9000, hint="y" * 9000, reason=Reason.INVALID_DATA, exit_code=ExitCode.INVALID_DATA)
    write_final_record(tmp_path / "termination", reporter.final_record("Failed", fault))
    text = (tmp_path / "termination").read_text()
    assert len(text.encode()) <= 4096
    written = json.loads(text)
    assert (written["reason"], written["attempt"], written["stepNumber"]) == ("InvalidData", 3, 7)


def test_a_fact_out_of_its_bounds_does_not_cost_the_final_record() -> None:
    reporter = Reporter("train", 1)
    reporter.report(step_number=7, metrics={f"m{n}": 1.0 for n in range(99)}, effective={"device": "cpu", "parts": [1]})
    record = reporter.final_record("Succeeded")
    assert (record.step_number, len(record.metrics), record.effective) == (7, 64, {"device": "cpu"})


def test_facts_of_one_kind_are_merged() -> None:
    reporter = Reporter("train", 1)
    reporter.report(metrics={"loss": 1.5})
    reporter.report(metrics={"eval_loss": 2.5})
    assert reporter.final_record("Succeeded").metrics == {"loss": 1.5, "eval_loss": 2.5}


def test_a_termination_log_that_cannot_be_written_is_said_not_raised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_final_record(tmp_path / "none" / "termination", Reporter("train", 1).final_record("Succeeded"))
    assert "cannot write" in capsys.readouterr().out
    write_final_record(None, Reporter("train", 1).final_record("Succeeded"))


class TestContext:
    def manifest(self, tmp_path: Path, **changes: object) -> dict[str, str]:
        value = {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": "r", "uid": "12345678-aaaa"},
            "spec": {
                "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 300}}},
                "datasets": [{"name": "d", "inline": {"text": "x"}}],
                "training": {"method": "Pretrain"},
                **changes,
            },
        }
        (tmp_path / "run.json").write_text(json.dumps(value))
        return {"TRAINYARD_RUN_FILE": str(tmp_path / "run.json")}

    def test_the_work_folder_follows_from_name_and_uid(self, tmp_path: Path) -> None:
        context = read_context("train", self.manifest(tmp_path))
        assert str(context.work_dir) == "/trainyard/checkpoints/r-12345678"
        assert str(context.volume) == "/trainyard/checkpoints"
        assert context.attempt == 1

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="does not exist"):
            read_context("train", {"TRAINYARD_RUN_FILE": str(tmp_path / "none")})

    def test_a_file_that_is_not_json(self, tmp_path: Path) -> None:
        (tmp_path / "run.json").write_text("kind: TrainingRun")
        with pytest.raises(UserError, match="is not JSON"):
            read_context("train", {"TRAINYARD_RUN_FILE": str(tmp_path / "run.json")})

    def test_a_manifest_with_faults_names_them(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"spec\.debugSteps.*must be at least 1") as caught:
            read_context("train", self.manifest(tmp_path, debugSteps=-5))
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG

    def test_the_environment_of_a_bare_call(self) -> None:
        assert attempt_number({}) == 1
        assert attempt_number({"TRAINYARD_ATTEMPT": "4"}) == 4
        assert str(termination_log({})) == "/dev/termination-log"
        assert termination_log({"TRAINYARD_TERMINATION_LOG": ""}) is None
