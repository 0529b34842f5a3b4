"""What a phase is made of: the run's own fields, and the phase's in their place."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.api import names
from trainyard.api.base import ApiModel
from trainyard.api.manifest import InvalidManifest, parse_run
from trainyard.api.run.phases import TrainingOverrides, partial
from trainyard.api.run.training import Training
from trainyard.api.run.trainingrun import HANDED_ON, TrainingRunSpec, phases_to_run, predecessor, resolve
from trainyard.api.steps import is_train, phase_of, train_step

TEXT = {"name": "stories", "inline": {"text": "hello"}, "split": {"eval": 0.1}}
CHATS = {"name": "chats", "format": "Messages", "inline": {"records": [{"messages": []}]}}


def spec(**changes: Any) -> TrainingRunSpec:
    values = {
        "model": {"scratch": {"architecture": "llama", "tokenizer": {"trainVocabSize": 500}}},
        "datasets": [TEXT, CHATS],
        "training": {"numTrainEpochs": 2, "learningRate": 1e-3, "extraArgs": {"adam_beta1": 0.8, "adam_beta2": 0.9}},
        "phases": [
            {"name": "pretrain", "datasets": ["stories"], "training": {"method": "Pretrain"}},
            {"name": "code", "datasets": ["stories"], "training": {"method": "CPT", "maxSteps": 5}},
            {"name": "instruct", "datasets": ["chats"], "training": {"extraArgs": {"adam_beta2": 0.95}}},
        ],
        "checkpoints": {"resumeFrom": "other"},
        **changes,
    }
    manifest = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "committee"},
        "spec": {k: v for k, v in values.items() if v is not None},
    }
    return parse_run(manifest).spec


def test_a_phase_is_a_run_of_its_own() -> None:
    first, second, third = (resolve(spec(), name) for name in ("pretrain", "code", "instruct"))
    assert first.phases is second.phases is third.phases is None
    assert first.model == spec().model
    assert second.model is not None
    assert (second.model.storage_uri, second.model.scratch) == (HANDED_ON, None)
    assert [d.name for d in first.datasets or ()] == ["stories"]
    assert first.training is not None
    assert (first.training.method, first.training.num_train_epochs) == ("Pretrain", 2)
    assert first.checkpoints.resume_from == "other"
    assert second.checkpoints.resume_from == ""


def test_a_phases_own_length_replaces_either_of_the_runs() -> None:
    training = resolve(spec(), "code").training
    assert training is not None
    assert (training.max_steps, training.num_train_epochs, training.learning_rate) == (5, None, 1e-3)


def test_extra_arguments_are_merged_by_name() -> None:
    training = resolve(spec(), "instruct").training
    assert training is not None
    assert training.extra_args == {"adam_beta1": 0.8, "adam_beta2": 0.95}


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "maxLength": st.integers(8, 4096),
    "seed": st.integers(0, 2147483647),
    "weightDecay": st.floats(0, 10),
    "packing": st.booleans(),
    "loggingSteps": st.integers(1, 1_000_000),
    "evalSteps": st.integers(1, 100),
}
SOME = st.fixed_dictionaries({}, optional=FIELDS)


@given(run=SOME, phase=SOME)
def test_every_field_is_the_phases_or_else_the_runs_or_else_the_default(
    run: dict[str, Any], phase: dict[str, Any]
) -> None:
    training = {"method": "Pretrain", **run}
    resolved = resolve(spec(training=training, phases=[{"name": "a", "datasets": ["stories"], "training": phase}]), "a")
    assert resolved.training == Training.model_validate({**training, **phase})


@given(chosen=st.sets(st.sampled_from(["pretrain", "code", "instruct"])))
def test_the_phases_that_run_keep_their_order_and_start_from_the_one_before(chosen: set[str]) -> None:
    everything = ("pretrain", "code", "instruct")
    made = spec(runPhases=sorted(chosen))
    order = phases_to_run(made)
    assert order == (tuple(n for n in everything if n in chosen) or everything)
    for before, name in itertools.pairwise(order):
        assert predecessor(made, name) == before
    first = everything.index(order[0])
    assert predecessor(made, order[0]) == (everything[first - 1] if first else None)
    steps = made.steps()
    assert [phase_of(s) for s in steps if is_train(s)] == list(order)
    assert ("evaluate" in steps) == (order[-1] != "instruct")  # the chats hold nothing out


def test_rules_hold_for_each_phase() -> None:
    wrong = [
        {"name": "late", "datasets": ["stories"], "training": {"method": "CPT"}},
        {"name": "again", "training": {"method": "Pretrain"}},
        {"name": "both", "datasets": ["chats"], "training": {"maxSteps": 1, "numTrainEpochs": 1}},
    ]
    with pytest.raises(InvalidManifest) as caught:
        spec(phases=wrong)
    messages = [fault.message for fault in caught.value.faults]
    assert messages[0].startswith("phase late: method CPT goes on from existing weights")
    assert messages[1].startswith("phase again: method Pretrain starts from random weights")
    assert messages[2].startswith("phase again: methods Pretrain and CPT learn from plain text")
    assert messages[3].startswith("phase both: maxSteps and numTrainEpochs exclude each other")


def test_a_misspelt_override_is_named_with_its_place() -> None:
    with pytest.raises(InvalidManifest, match=r"spec.phases\[0\].training.learningrate: .*did you mean learningRate"):
        spec(phases=[{"name": "a", "training": {"learningrate": 1}}])


def test_the_first_of_the_phases_to_run_may_have_to_start_from_the_model() -> None:
    made = spec(model={"storageUri": "hf://org/name"}, phases=[{"name": "a"}, {"name": "b"}], runPhases=["b"],
                datasets=[CHATS])  # fmt: skip
    model = resolve(made, "b", handed_on=False).model
    assert model is not None
    assert model.storage_uri == "hf://org/name"


def test_overrides_have_every_field_of_the_training_with_its_bounds_and_no_default() -> None:
    assert TrainingOverrides.model_fields.keys() == Training.model_fields.keys() - {"trm"}
    assert TrainingOverrides.model_validate({}).model_dump(exclude_none=True) == {}
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TrainingOverrides.model_validate({"maxSteps": 0})


def test_objects_within_are_partial_too() -> None:
    class Inner(ApiModel):
        a: int = 1
        b: int = 2

    class Outer(ApiModel):
        inner: Inner = Inner()

    made = partial(Outer, "OuterOverrides").model_validate({"inner": {"a": 5}})
    assert made.model_dump(exclude_none=True) == {"inner": {"a": 5}}


@given(
    run=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?", fullmatch=True),
    phase=st.from_regex(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", fullmatch=True),
    attempt=st.integers(1, 99_999),
)
def test_a_job_name_fits_with_the_index_of_a_pod(run: str, phase: str, attempt: int) -> None:
    step = train_step(phase)
    name = names.job_name(run, step, attempt)
    assert len(name) <= names.JOB_NAME_LIMIT
    assert name.endswith(f"-{attempt}")
    assert phase_of(step) == phase
    if len(f"{run}-{step}-{attempt}") <= names.JOB_NAME_LIMIT:
        assert name == f"{run}-{step}-{attempt}"


def test_long_names_that_begin_alike_stay_apart() -> None:
    made = {names.job_name("r" * 50, f"train-{'p' * 30}{n}", 1) for n in range(5)}
    assert len(made) == 5
