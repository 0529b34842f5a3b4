"""Two processes train what one process trains, stop together, and go on together or alone."""

from __future__ import annotations

import copy
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.training.runs import Run, Step, Zygote, tiny_spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def without_dropout(spec: dict[str, Any]) -> None:
    """As different masks in two processes would be another training; an odd number of sequences comes of itself."""
    spec["model"]["scratch"]["config"]["attention_dropout"] = 0.0
    spec["training"] |= {"evalSteps": None, "loggingSteps": 1}


def start(run: Run, size: int = 2) -> list[Step]:
    run.spec["numProcPerNode"] = size
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    steps = []
    for rank in range(size):
        run.environment = {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "TRAINYARD_TERMINATION_LOG": str(run.folder / f"termination-{rank}"),
        }
        steps.append(run.start("train"))
    return steps


def finish(steps: list[Step], *expected: int) -> None:
    codes = tuple(step.wait() for step in steps)
    assert codes == expected, "\n".join(line for step in steps for line in step.lines)


def kill_one_and_go_on(run: Run) -> None:
    """The other process ends too, and both go on from the last checkpoint."""
    steps = start(run)
    steps[0].wait_for_line(lambda line: line.startswith("step 8/"))
    steps[1].kill(signal.SIGKILL)
    finish(steps, 75, -signal.SIGKILL)
    assert "another process of this training has gone" in final_record(run, 0)["message"]
    again = start(run)
    finish(again, 0, 0)
    assert any(line.startswith("going on from step-") for line in again[0].lines)


def losses(run: Run) -> dict[int, float]:
    state = json.loads((run.work / "checkpoints" / "step-00000030" / "trainer_state.json").read_text())
    return {entry["step"]: entry["loss"] for entry in state["log_history"] if "loss" in entry}


def final_record(run: Run, rank: int) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run.folder / f"termination-{rank}").read_text())
    return record


@pytest.fixture(scope="module")
def alone(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One process, with twice the accumulation of each of two."""
    spec = tiny_spec()
    without_dropout(spec)
    spec["training"]["gradientAccumulationSteps"] *= 2
    run = Run(zygote, tmp_path_factory.mktemp("alone"), spec)
    run.run("prepare")
    run.run("train")
    return run


@pytest.fixture
def pair(alone: Run, tmp_path: Path) -> Run:
    """The same data and the same batch for two processes."""
    run = alone.fork(tmp_path)
    run.spec["training"]["gradientAccumulationSteps"] //= 2
    return run


def assert_same_curve(run: Run, other: Run) -> None:
    mine, theirs = losses(run), losses(other)
    assert mine.keys() == theirs.keys() == set(range(1, 31))
    worst = max(abs(mine[step] - theirs[step]) for step in mine)
    print(f"largest difference of the losses: {worst:.2e}")
    assert worst < 1e-4


def test_the_loss_curve_is_that_of_one_process(alone: Run, pair: Run) -> None:
    steps = start(pair)
    finish(steps, 0, 0)
    assert_same_curve(pair, alone)
    assert any("x 2 processes" in line for line in steps[0].lines)
    assert not [line for line in steps[1].lines if line.startswith("step ")], "only the first process reports"
    tokens = [
        json.loads((r.work / "checkpoints/step-00000030/trainyard.json").read_text())["tokens"] for r in (pair, alone)
    ]
    assert tokens[0] == tokens[1]


def test_a_signal_to_one_process_stops_both_at_the_same_step(alone: Run, pair: Run) -> None:
    steps = start(pair)
    steps[0].wait_for_line(lambda line: line.startswith("step 8/"))
    steps[1].kill(signal.SIGTERM)
    finish(steps, 75, 75)
    assert [final_record(pair, rank)["outcome"] for rank in (0, 1)] == ["Resume", "Resume"]
    assert pair.checkpoints[-1] not in ("step-00000005", "step-00000030")
    finish(start(pair), 0, 0)
    assert_same_curve(pair, alone)


def test_a_killed_process_takes_the_other_along_and_both_go_on_exactly(pair: Run, tmp_path: Path) -> None:
    pair.spec["model"]["scratch"]["config"]["attention_dropout"] = 0.1
    undisturbed = Run(pair.zygote, tmp_path / "undisturbed", copy.deepcopy(pair.spec))
    undisturbed.run("prepare")
    finish(start(undisturbed), 0, 0)

    kill_one_and_go_on(pair)
    assert pair.model_digest == undisturbed.model_digest


def test_what_two_began_one_ends_and_the_other_way_round(alone: Run, pair: Run, new_run: Callable[..., Run]) -> None:
    steps = start(pair)
    steps[0].wait_for_line(lambda line: line.startswith("step 8/"))
    steps[0].kill(signal.SIGTERM)
    finish(steps, 75, 75)
    pair.spec["training"]["gradientAccumulationSteps"] *= 2
    finish(start(pair, 1), 0)
    assert_same_curve(pair, alone)

    other = alone.fork(pair.folder / "other")
    other.stop("step 11/")
    other.spec["training"]["gradientAccumulationSteps"] //= 2
    finish(start(other), 0, 0)
    assert_same_curve(other, alone)


@given(
    length=st.integers(1, 60),
    batch=st.integers(1, 5),
    size=st.integers(2, 4),
    accumulation=st.integers(1, 3),
    epoch=st.integers(0, 2),
)
def test_the_shares_of_a_step_are_together_what_one_process_sees_in_it(
    length: int, batch: int, size: int, accumulation: int, epoch: int
) -> None:
    from trainyard.trainer.machine.team import Team
    from trainyard.trainer.methods.batches import BLANK, EpochOrder

    def steps(order: EpochOrder, per_step: int) -> list[list[int]]:
        order.set_epoch(epoch)
        indexes = list(order)
        assert len(indexes) == len(order)
        return [indexes[i : i + per_step] for i in range(0, len(indexes), per_step)]

    whole = steps(EpochOrder(length, 7), batch * size * accumulation)
    shares = [
        steps(EpochOrder(length, 7, batch=batch, team=Team(rank=rank, size=size)), batch * accumulation)
        for rank in range(size)
    ]
    assert {len(share) for share in shares} == {len(whole)}
    for number, together in enumerate(whole):
        seen = [index for share in shares for index in share[number] if index != BLANK]
        assert sorted(seen) == sorted(together)
        assert len({-(-len(share[number]) // batch) for share in shares}) == 1, "all do as many micro-batches"
