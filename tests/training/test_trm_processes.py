"""Two processes train the Tiny Recursive Model that one process trains, and go on together or alone.

One process with two chunks adds up the same two numbers as two processes with one chunk each, so not one bit may differ.
"""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.training.runs import Run, Step, Zygote
from tests.training.test_processes import final_record, finish, kill_one_and_go_on, start
from tests.training.test_trm import digests, trm_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
LINE = re.compile(r"step (\d+)/30 .* loss (\S+)")


@pytest.fixture(scope="module")
def alone(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Step]:
    """One process."""
    spec = trm_spec()
    spec["training"] |= {"perDeviceTrainBatchSize": 8, "gradientAccumulationSteps": 2}
    run = Run(zygote, tmp_path_factory.mktemp("alone"), spec)
    run.run("prepare")
    return run, run.run("train")


def losses(*steps: Step) -> dict[int, float]:
    return {int(found[1]): float(found[2]) for step in steps for line in step.lines if (found := LINE.match(line))}


def test_the_training_is_that_of_one_process(alone: tuple[Run, Step], tmp_path: Path) -> None:
    run = alone[0].fork(tmp_path)
    steps = start(run)
    finish(steps, 0, 0)
    wanted = losses(alone[1])
    assert wanted.keys() == set(range(1, 31))
    assert losses(steps[0]) == pytest.approx(wanted, abs=1e-4)
    assert digests(run) == digests(alone[0])
    assert any("batch 16 on 2 processes" in line for line in steps[0].lines)
    assert not losses(steps[1]), "only the first process reports"
    effective = final_record(run, 0)["effective"]
    assert (effective["perDeviceTrainBatchSize"], effective["processes"]) == (8, 2)


def test_a_killed_process_takes_the_other_along_and_both_go_on_exactly(alone: tuple[Run, Step], tmp_path: Path) -> None:
    run = alone[0].fork(tmp_path)
    kill_one_and_go_on(run)
    assert digests(run) == digests(alone[0])


STOP_WHILE_MEASURING = """
import trainyard.trainer.trm.train as train
from trainyard.trainer.signals import STOP
measure = train.judge_average
def judge_average(fit, *arguments, **named):
    if fit.step >= {step}:
        STOP.request()
    return measure(fit, *arguments, **named)
train.judge_average = judge_average
"""


@pytest.mark.parametrize("step", [7, 30])
def test_a_stop_while_the_first_one_measures_is_a_stop_of_both(
    alone: tuple[Run, Step], tmp_path: Path, step: int
) -> None:
    run = alone[0].fork(tmp_path)
    run.patch = STOP_WHILE_MEASURING.format(step=step)
    finish(start(run), 75, 75)
    assert [final_record(run, rank)["outcome"] for rank in (0, 1)] == ["Resume", "Resume"]
    assert run.checkpoints[-1] == f"step-{step:08d}"
    run.patch = ""
    again = start(run)
    finish(again, 0, 0)
    assert any(line.startswith(f"step {step}/30  eval exact") for line in again[0].lines), "it is measured after all"
    assert run.model_digest == alone[0].model_digest


@pytest.mark.parametrize(("size", "then"), [(2, 1), (1, 2)])
def test_what_some_processes_began_others_end(alone: tuple[Run, Step], tmp_path: Path, size: int, then: int) -> None:
    run = alone[0].fork(tmp_path)
    steps = start(run, size)
    steps[0].wait_for_line(lambda line: line.startswith("step 8/"))
    steps[-1].kill(signal.SIGTERM)
    finish(steps, *[75] * size)
    stopped = [final_record(run, rank) for rank in range(size)]
    assert {record["outcome"] for record in stopped} == {"Resume"}
    assert 8 <= stopped[0]["checkpoint"]["step"] < 30
    finish(start(run, then), *[0] * then)
    assert digests(run) == digests(alone[0])


def test_a_batch_that_cannot_be_shared_out_is_refused(alone: tuple[Run, Step], tmp_path: Path) -> None:
    run = alone[0].fork(tmp_path)
    run.spec["numProcPerNode"] = 3
    step = run.run("train", expect=64)
    assert any(
        "perDeviceTrainBatchSize x gradientAccumulationSteps must be divisible by" in line for line in step.lines
    )
