"""What may change once a run has started, what may change while it is suspended, and what never.

Three runs are made: one that has not started, one that has, one that has and is suspended. Every change is asked for as a
dry run, so the three stay as they are.
"""

import json
import re
from typing import Any

import pytest

from tests.api.conftest import Objects
from tests.api.manifests import FINE_TUNING, SCRIPT, WORKSPACE, run
from tests.api.places import Place, put, shown
from trainyard.api.run.changes import ROOT_RULES, TRAINING_IDENTITY

pytestmark = pytest.mark.api

STARTED = {"status": {"startTime": "2026-01-01T00:00:00Z"}}
FIXED: tuple[tuple[Place, Any], ...] = (
    (("phases",), [{"name": "first"}]),
    (("runPhases",), []),
    (("model", "storageUri"), "hf://org/other"),
    (("model", "adapter", "lora", "rank"), 4),
    (("datasets", 0, "weight"), 2),
    (("datasets", 0, "storageUri"), "s3://bucket/other.jsonl"),
    (("datasetUpload", "storageUri"), "s3://bucket/other"),
    (("mode",), "Debug"),
    (("storage", "checkpoints", "claimName"), "other"),
    (("training", "method"), "CPT"),
    (("training", "maxLength"), 256),
    (("training", "packing"), False),
    (("training", "seed"), 2),
    (("training", "precision"), "BF16"),
    (("training", "optim"), "adafactor"),
    (("training", "lrSchedulerType"), "linear"),
    (("training", "trm"), {}),
    (("training", "teacher"), {"storageUri": "hf://org/large"}),
)
BREAKS_A_RULE = (("training", "method"), ("training", "trm"), ("training", "teacher"))
"""Of the changes above: those that no run could have been made with."""
WHILE_SUSPENDED: tuple[tuple[Place, Any], ...] = (
    (("training", "perDeviceTrainBatchSize"), 2),
    (("training", "gradientAccumulationSteps"), 2),
    (("training", "maxSteps"), 20),
    (("training", "learningRate"), 2e-4),
    (("image",), "example.org/trainer:2"),
    (("numNodes",), 3),
    (("numProcPerNode",), 2),
    (("resources", "limits"), {"nvidia.com/gpu": 2}),
    (("stepResources", "prepare", "requests"), {"cpu": 2}),
    (("placement", "nodeNames"), ["forge"]),
    (("podTemplate", "env"), [{"name": "A", "value": "2"}]),
)
ALWAYS: tuple[tuple[Place, Any], ...] = (
    (("suspend",), True),
    (("backoffLimit",), 5),
    (("activeDeadlineSeconds",), 120),
    (("ttlSecondsAfterFinished",), 0),
    (("checkpoints", "everySteps"), 2),
    (("checkpoints", "keepLast"), 5),
    (("storage", "checkpoints", "retain"), False),
    (("evaluation", "enabled"), False),
    (("cost", "limit"), 24),
)


def rule_for(place: Place) -> str:
    """The message that a change of this place must be refused with."""
    paths = [shown(place[:end]) for end in range(len(place), 0, -1)]
    for path in paths:
        for rule in ROOT_RULES:
            if f"'{path}'" in (rule.message_cel or ""):
                return rule.message.replace("these fields", path)
    raise LookupError(f"no rule speaks of {shown(place)}")


@pytest.fixture(scope="module")
def made(runs: Objects) -> Objects:
    for name, start, suspended in (("new", False, False), ("started", True, False), ("suspended", True, True)):
        assert (created := runs.create(run(put(FINE_TUNING, ("suspend",), suspended), name=name))).accepted, (
            created.message
        )
        if start:
            assert runs.patch(name, STARTED, status=True).accepted
    return runs


def change(made: Objects, name: str, place: Place, value: Any) -> Any:
    """A dry run of one change, as a JSON patch, so that nothing else is touched."""
    pointer = "/spec/" + "/".join(str(part) for part in place)
    return made.server.request(
        "PATCH",
        f"{made.path}/{name}",
        [{"op": "add" if place[-1:] != (0,) else "replace", "path": pointer, "value": value}],
        content_type="application/json-patch+json",
        dryRun="All",
    )


def label(case: Any) -> str:
    return shown(case[0]) if isinstance(case, tuple) and len(case) == 2 else json.dumps(case)


@pytest.mark.parametrize(
    "case", [c for c in FIXED if c[0] not in BREAKS_A_RULE] + list(WHILE_SUSPENDED + ALWAYS), ids=label
)
def test_before_the_start_everything_may_change(case: tuple[Place, Any], made: Objects) -> None:
    answer = change(made, "new", *case)
    assert answer.accepted, answer.message


@pytest.mark.parametrize("name", ["started", "suspended"])
@pytest.mark.parametrize("case", FIXED, ids=label)
def test_what_identifies_a_training_never_changes(case: tuple[Place, Any], name: str, made: Objects) -> None:
    answer = change(made, name, *case)
    assert answer.code == 422
    assert rule_for(case[0]) in answer.message


@pytest.mark.parametrize("case", WHILE_SUSPENDED, ids=label)
def test_what_fits_it_to_the_hardware_changes_only_while_suspended(case: tuple[Place, Any], made: Objects) -> None:
    running = change(made, "started", *case)
    assert running.code == 422
    assert rule_for(case[0]) in running.message
    paused = change(made, "suspended", *case)
    assert paused.accepted, paused.message


@pytest.mark.parametrize("name", ["started", "suspended"])
@pytest.mark.parametrize("case", ALWAYS, ids=label)
def test_what_only_steers_it_may_change_at_any_time(case: tuple[Place, Any], name: str, made: Objects) -> None:
    answer = change(made, name, *case)
    assert answer.accepted, answer.message


@pytest.mark.parametrize("place", [("model",), ("datasets",)])
def test_taking_away_what_identifies_it_is_refused_too(place: Place, made: Objects) -> None:
    pointer = "/spec/" + "/".join(map(str, place))
    for name in ("started", "suspended"):
        answer = made.server.request(
            "PATCH",
            f"{made.path}/{name}",
            [{"op": "remove", "path": pointer}, {"op": "add", "path": "/spec/command", "value": ["x"]}],
            content_type="application/json-patch+json",
            dryRun="All",
        )
        assert answer.code == 422, f"{pointer} of the {name} run could be removed"
        assert f"{shown(place)} " in answer.message


def test_a_scripts_command_and_arguments_are_fixed(runs: Objects) -> None:
    assert runs.create(run(SCRIPT, name="script")).accepted
    assert runs.patch("script", STARTED, status=True).accepted
    for place, value in ((("command",), ["other"]), (("args",), ["--slow"])):
        answer = change(runs, "script", place, value)
        assert answer.code == 422
        assert rule_for(place) in answer.message


@pytest.mark.parametrize("storage", [None, {}, {"cache": {"size": "1Gi"}}, {"checkpoints": {"size": "1Gi"}}])
def test_a_started_run_that_says_little_of_its_storage_can_be_suspended(
    runs: Objects, storage: dict[str, Any] | None
) -> None:
    name = f"storage-{'-'.join(storage) or 'empty' if storage is not None else 'none'}"
    spec = {**SCRIPT, **({} if storage is None else {"storage": storage})}
    assert runs.create(run(spec, name=name)).accepted
    assert runs.patch(name, STARTED, status=True).accepted
    answer = change(runs, name, ("suspend",), True)
    assert answer.accepted, answer.message
    own = {"workspace": {"git": {"url": "https://git.example.org/other"}}, "checkpoints": {"claimName": "other"}}
    for part, value in own.items():
        answer = runs.patch(name, {"spec": {"storage": {part: value}}}, dry_run=True)
        assert answer.code == 422
        assert f"spec.storage.{part}" in answer.message


def test_a_started_runs_workspace_never_changes(runs: Objects) -> None:
    assert runs.create(run(WORKSPACE, name="cloned")).accepted
    assert runs.patch("cloned", STARTED, status=True).accepted
    answer = change(runs, "cloned", ("storage", "workspace", "git", "ref"), "other")
    assert answer.code == 422
    assert rule_for(("storage", "workspace")) in answer.message
    assert change(runs, "cloned", ("backoffLimit",), 5).accepted


def test_the_status_of_a_started_run_can_still_be_written(made: Objects) -> None:
    for name in ("started", "suspended"):
        answer = made.patch(name, {"status": {"state": "Training", "restarts": 1}}, status=True, dry_run=True)
        assert answer.accepted, answer.message


def test_every_path_of_the_rules_about_changes_has_a_case() -> None:
    told = {rule_for(place) for place, _ in FIXED + WHILE_SUSPENDED} | {
        rule_for((field,)) for field in ("command", "args")
    }
    told.add(rule_for(("storage", "workspace")))
    for rule in ROOT_RULES:
        for path in re.findall(r"'(spec\.[\w.]+)'", rule.message_cel or ""):
            assert rule.message.replace("these fields", path) in told
    assert set(TRAINING_IDENTITY) <= {place[1] for place, _ in FIXED if place[0] == "training"}
