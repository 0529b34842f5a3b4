"""Whatever pods and people tell: the look goes on, the status is one that the API server takes, the decision stands in it.

What the receiver refuses of a record, and what it cleans, is tested where the record is.
"""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.controller.runs.crd_schema import faults
from tests.unit.controller.runs.world import World, condition, manifest, progress, until_training
from trainyard.api.conditions import State
from trainyard.api.progress import ProgressRecord
from trainyard.api.run.status import Summary, TrainingRunStatus
from trainyard.controller.runs import told
from trainyard.controller.runs.announce import notices
from trainyard.controller.runs.columns import summarise

ESCAPES = "\x1b[31mred\x1b[0m\r\nnext\x00line\u2028third \x9b2Jx\u202egnp"

# One at a time


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        (1e30, "1e+30"),
        (3.4e38, "3.4e+38"),
        (1e300, "1e+300"),
        (1234.5, "1234.5000"),
        (0.5, "0.5000"),
        (-2e9, "-2e+09"),
    ],
)
def test_a_loss_of_any_size_stands_in_its_column(loss: float, shown: str) -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=4).model_copy(update={"metrics": {"loss": loss}})
    world.settle()
    summary = world.status().summary
    assert summary is not None
    assert summary.loss == shown


def test_a_run_whose_loss_has_left_all_bounds_can_be_suspended_cancelled_and_timed_out() -> None:
    def diverging(**spec: Any) -> World:
        world = World(run=manifest(**spec))
        until_training(world)
        world.progress = progress(world, step=4).model_copy(update={"metrics": {"loss": 1e30}})
        world.settle()
        return world

    world = diverging()
    world.edit(suspend=True)
    world.settle()
    world.collect()
    world.settle()
    assert condition(world, "Suspended") == ("True", "Suspended")
    world = diverging()
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "it diverges"}
    world.settle()
    world.collect()
    world.settle()
    assert world.status().state == "Cancelled"
    world = diverging(activeDeadlineSeconds=60)
    world.pass_time(60)
    world.settle()
    assert condition(world, "Failed") == ("True", "DeadlineExceeded")


def test_a_cancel_annotation_may_be_a_novel() -> None:
    world = World()
    world.settle()
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "first\nsecond " + "and so on " * 4000}
    world.settle()
    world.collect()
    world.settle()
    message = world.status().message or ""
    assert world.status().state == "Cancelled"
    assert message.startswith("cancelled: first second and so on")
    assert len(message) < 1100


def test_a_message_of_several_lines_is_one_in_the_status_and_in_events() -> None:
    world = World()
    until_training(world)
    before = world.status()
    world.end(exit_code=65, record={"outcome": "Failed", "message": "first\nsecond\x1b[1m third"})
    world.settle()
    status = world.status()
    assert status.message == "first second third"
    assert (status.steps or [])[1].attempts[-1].message == "first second third"  # type: ignore[index]
    assert all("\n" not in n.message for n in notices(before, status))


def test_the_end_of_a_log_and_what_the_cluster_says_is_cleaned_too() -> None:
    world = World()
    until_training(world)
    world.end(exit_code=1, log=f"{ESCAPES}\n{'x' * 2000}\nlast \x1b[31mwords")
    world.settle()
    attempt = (world.status().steps or [])[1].attempts[-1]  # type: ignore[index]
    assert attempt.message == "exit code 1: last words"
    assert all(line.isprintable() and len(line) <= 300 for line in attempt.last_log_lines or ())
    assert (world.status().message or "").isprintable()
    world.pass_time(60)
    world.settle()
    world.pending_pod(message=f"0/2 nodes: {ESCAPES}")
    world.settle()
    assert (world.status().message or "").isprintable()


def test_of_two_sources_of_one_name_the_first_stands() -> None:
    """A list by name cannot hold both."""
    world = World()
    world.settle()
    sources = [{"name": "a", "records": 1}, {"name": "b", "records": 2}, {"name": "a", "records": 3}]
    world.end(record={"dataset": {"records": 6, "sources": sources}})
    world.settle()
    dataset = world.status().dataset
    assert dataset is not None
    assert [(s.name, s.records) for s in dataset.sources or ()] == [("a", 1), ("b", 2)]


def test_a_final_record_beyond_all_bounds_still_ends_its_step() -> None:
    world = World(run=manifest(evaluation={"enabled": False}))
    until_training(world)
    record = {"percentage": 700, "stepNumber": 10**40, "totalSteps": -1, "metrics": {"loss": 3.4e38}}
    world.end(record=record | {"checkpoint": {"step": 10**30, "path": "c/1"}})
    world.settle()
    status = world.status()
    assert status.state == "Succeeded"
    assert status.trainer_status is not None
    assert (status.trainer_status.progress_percentage, status.trainer_status.step) == (100, None)
    assert status.checkpoint is None


def test_what_was_told_is_left_out_on_request_and_the_decision_stays() -> None:
    world = World()
    until_training(world)
    world.progress = progress(world, step=4, checkpoint=3)
    world.settle()
    bare = told.left_out(world.status())
    assert bare.trainer_status is None
    assert bare.summary is None
    assert bare.conditions == world.status().conditions
    assert [(s.name, s.state) for s in bare.steps or ()] == [(s.name, s.state) for s in world.status().steps or ()]


def test_a_status_with_numbers_that_can_no_longer_be_read_is_read_without_them() -> None:
    written = {"state": "Training", "summary": {"loss": "9" * 40}, "checkpoint": {"step": -5}, "restarts": 2}
    with pytest.raises(ValidationError):
        TrainingRunStatus.model_validate(written)
    assert told.read_status(written) == TrainingRunStatus(state="Training", restarts=2)


# Anything at all

SIZES = st.one_of(st.integers(0, 1000), st.integers(0, 2**70), st.integers(10**39, 10**41))
ANY_INT = st.one_of(SIZES, st.integers(-(2**70), 2**70))
ANY_FLOAT = st.floats(allow_nan=True, allow_infinity=True)
CHARACTERS = st.characters(exclude_categories=())


def texts(limit: int, *, surrogates: bool = False) -> st.SearchStrategy[str]:
    some = st.text(CHARACTERS if surrogates else st.characters(), max_size=min(limit, 60))
    nasty = st.sampled_from(
        [ESCAPES[:limit], "x" * limit, "\n" * limit, "yesterday"[:limit], "0001-01-01T00:00:00+14:00"[:limit]]
    )
    return st.one_of(some, nasty)


LONG = st.builds(lambda text, times: text * times, texts(60), st.sampled_from([1, 1, 1, 40, 4000]))
ANYTHING = st.recursive(
    st.none() | st.booleans() | ANY_INT | ANY_FLOAT | LONG, lambda inner: st.lists(inner, max_size=2)
)
MAPPING = st.dictionaries(texts(400), ANYTHING, max_size=5)
TIMES = st.datetimes(timezones=st.timezones()).map(lambda t: t.isoformat()) | st.just("2026-01-01T00:00:00.5+14:00")
CHECKPOINTS = st.fixed_dictionaries({"step": SIZES}, optional={"path": texts(1024), "time": LONG, "bytes": ANY_INT})
STEPS = st.sampled_from(["prepare", "train", "evaluate", "validate", "train-x"])

PROGRESS = st.fixed_dictionaries(
    {
        "runUid": st.just("u"),
        "step": STEPS,
        "attempt": st.sampled_from([1, 1, 1, 2]),
        "sequence": st.integers(0, 2**53),
        "time": TIMES,
    },
    optional={
        "phase": texts(32),
        "firstStep": SIZES,
        "stepNumber": SIZES,
        "totalSteps": SIZES,
        "epoch": ANY_FLOAT,
        "percentage": st.floats(0, 100),
        "estimatedRemainingSeconds": st.floats(0, allow_infinity=True, allow_nan=False),
        "metrics": st.dictionaries(texts(400), st.none() | ANY_FLOAT, max_size=64),
        "checkpoint": CHECKPOINTS,
        "effective": MAPPING,
        "mlflowRunId": texts(64),
        "message": texts(1024),
    },
)
SOURCES = st.lists(st.fixed_dictionaries({"name": texts(63), "records": SIZES}), max_size=4)
FINAL = st.fixed_dictionaries(
    {"step": STEPS, "outcome": st.sampled_from(["Succeeded", "Resume", "Failed"])},
    optional={
        "attempt": ANY_INT,
        "reason": LONG,
        "message": LONG,
        "hint": LONG,
        "firstStep": ANY_INT,
        "stepNumber": ANY_INT,
        "totalSteps": ANY_INT,
        "percentage": ANY_FLOAT,
        "metrics": st.dictionaries(texts(400), st.none() | ANY_FLOAT, max_size=70),
        "checkpoint": CHECKPOINTS,
        "dataset": st.fixed_dictionaries(
            {},
            optional={
                "digest": texts(128),
                "records": ANY_INT,
                "tokens": ANY_INT,
                "splits": st.dictionaries(LONG, ANY_INT, max_size=4),
                "sources": SOURCES,
            },
        ),
        "evaluation": st.one_of(
            MAPPING,
            st.fixed_dictionaries({"metrics": st.one_of(ANYTHING, MAPPING), "passed": ANYTHING, "message": ANYTHING}),
        ),
        "effective": MAPPING,
        "provenance": MAPPING,
        "timings": st.dictionaries(texts(20), ANY_FLOAT, max_size=2),
        "mlflowRunId": texts(64),
        "lastLogLines": st.lists(LONG, max_size=30),
    },
)


def accepted(given: dict[str, Any]) -> ProgressRecord | None:
    """As much of the record as the model takes."""
    return ProgressRecord.lenient(given)


def check(world: World) -> None:
    """The status as it would go over the wire."""
    assert [*faults(json.loads(json.dumps(world.run["status"])))] == []


@settings(max_examples=250, deadline=None)
@given(record=PROGRESS, again=PROGRESS, suspend=st.booleans())
def test_any_record_that_is_accepted_gives_a_status_that_is_taken(
    record: dict[str, Any], again: dict[str, Any], suspend: bool
) -> None:
    world = World()
    until_training(world)
    for given_ in (record, again):
        world.progress = accepted(given_) or world.progress
        world.settle()
        check(world)
    if suspend:
        world.edit(suspend=True)
        world.settle()
        world.collect()
    else:
        world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": "enough"}
        world.settle()
        world.collect()
    world.settle()
    check(world)
    assert world.status().state == ("Suspended" if suspend else "Cancelled")


@settings(max_examples=250, deadline=None)
@given(
    message=st.one_of(FINAL.map(json.dumps), LONG, st.builds(lambda text: "{" + text, LONG)),
    code=st.sampled_from([0, 0, 1, 64, 75, 79, 137, 143]),
    reason=st.sampled_from(["", "OOMKilled", "StartError"]),
    step=st.sampled_from(["prepare", "train"]),
)
def test_any_termination_message_gives_a_status_that_is_taken(message: str, code: int, reason: str, step: str) -> None:
    world = World(run=manifest(backoffLimit=1))
    if step == "train":
        until_training(world)
    else:
        world.settle()
    world.end(exit_code=code, reason=reason, log=message)
    world.settle()
    check(world)
    world.pass_time(400)
    world.settle()
    check(world)


@settings(max_examples=100, deadline=None)
@given(annotation=LONG, skip=LONG, node=texts(253), complaint=LONG)
def test_any_annotation_and_anything_that_the_cluster_says_gives_a_status_that_is_taken(
    annotation: str, skip: str, node: str, complaint: str
) -> None:
    world = World()
    world.settle()
    world.pending_pod(message=complaint or "no")
    world.settle()
    check(world)
    world.pods.clear()
    world.start_pod(node=node)
    world.settle()
    check(world)
    world.run["metadata"]["annotations"] = {"trainyard.dev/cancel": annotation, "trainyard.dev/skip-if-dataset": skip}
    world.settle()
    world.collect()
    world.settle()
    check(world)
    assert world.status().state == "Cancelled"


@settings(max_examples=200, deadline=None)
@given(value=st.one_of(ANY_FLOAT, ANY_INT, LONG), steps=st.tuples(SIZES, SIZES), seconds=ANY_FLOAT)
def test_no_column_can_overflow(value: Any, steps: tuple[int, int], seconds: float) -> None:
    world = World()
    until_training(world)
    told_ = {"step_number": steps[0], "total_steps": steps[1], "estimated_remaining_seconds": seconds}
    record = accepted(progress(world, step=1).model_dump() | {"metrics": {"loss": value}} | told_)
    assert record is not None
    world.progress = record
    world.settle()
    summary = summarise(world.observe().run, world.status(), State.TRAINING)
    assert Summary.model_validate(summary.model_dump()) == summary
    check(world)


def test_the_checker_finds_what_the_api_server_would() -> None:
    good = {"conditions": [], "trainerStatus": {"metrics": [{"name": "a", "value": "1"}]}}
    assert [*faults(good)] == []
    bad = {
        "summary": {"loss": "9" * 33},
        "checkpoint": {"step": -1, "time": "yesterday"},
        "trainerStatus": {"metrics": [{"name": "a", "value": "1"}] * 2, "step": 10**40},
        "steps": [{"name": "train", "state": "Dancing"}],
        "restarts": True,
        "unknown": 1,
        "message": "\ud800",
    }
    assert len([*faults(bad)]) == 9
