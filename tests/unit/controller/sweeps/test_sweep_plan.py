"""What a sweep does at one moment and over its life, without a cluster."""

from typing import Any

import pytest

from tests.unit.controller.sweeps.world import ASHA, METRIC, RATE, RUN_SPEC, World, bowl, manifest
from trainyard.controller.sweeps.observed import Create
from trainyard.controller.sweeps.trial import noted_rungs, number_of

LAYERS = {"name": "training.seed", "choice": {"values": [1, 2]}}


def conditions(world: World) -> dict[str, str]:
    return {c.type: f"{c.status}/{c.reason}" for c in world.status.conditions or ()}


def test_trials_run_one_after_the_other_and_the_best_is_told() -> None:
    world = World().run_to_the_end()
    assert world.created == ["tune-1", "tune-2", "tune-3", "tune-4"]
    assert world.most_at_once == 1
    status = world.status
    assert status.state == "Succeeded"
    assert status.summary == "4/4"
    values = {entry.run: float(entry.value or "nan") for entry in status.trials or ()}
    assert status.best is not None
    assert values[status.best.run] == min(values.values())
    assert conditions(world) == {"Ready": "True/AllTrialsEnded", "Complete": "True/AllTrialsEnded"}
    told = [notice.reason.value for notice in world.notices]
    assert told.count("TrialCreated") == 4
    assert told.count("TrialSucceeded") == 4
    assert told[-1] == "AllTrialsEnded"


def test_a_childs_spec_is_the_template_with_the_trials_values() -> None:
    world = World(
        manifest(parameters=[RATE, {"name": "training.extraArgs.adam_beta2", "double": {"min": 0, "max": 1}}])
    )
    world.look()
    (run,) = world.runs.values()
    values = world.assignments()["tune-1"]
    training = run["spec"]["training"]
    assert training["learningRate"] == values["training.learningRate"]
    assert training["extraArgs"] == {"adam_beta2": values["training.extraArgs.adam_beta2"]}
    assert training["maxSteps"] == 90
    assert (
        run["metadata"]["ownerReferences"][0] | {"kind": "TrainingSweep", "controller": True}
        == (run["metadata"]["ownerReferences"][0])
    )
    assert run["metadata"]["labels"]["trainyard.dev/trial"] == "1"


def test_parallel_trials_bound_what_trains_at_a_time() -> None:
    world = World(manifest(numTrials=7, parallelTrials=3)).run_to_the_end()
    assert world.most_at_once == 3
    assert len(world.created) == 7


def test_grid_makes_each_combination_once() -> None:
    rate = {"name": "training.learningRate", "choice": {"values": [1e-4, 1e-3]}}
    world = World(manifest(algorithm="Grid", numTrials=None, parameters=[rate, LAYERS])).run_to_the_end()
    made = [tuple(values.values()) for values in world.assignments().values()]
    assert made == [(1e-4, 1), (1e-4, 2), (1e-3, 1), (1e-3, 2)]
    assert world.status.best is not None
    assert world.status.best.assignments == {"training.learningRate": "0.001", "training.seed": "1"}


def test_maximize_takes_the_largest() -> None:
    world = World(manifest(objective={"metric": METRIC, "direction": "Maximize"})).run_to_the_end()
    values = [float(entry.value or "nan") for entry in world.status.trials or ()]
    assert world.status.best is not None
    assert float(world.status.best.value) == max(values)


def test_the_goal_ends_the_sweep_and_suspends_what_still_trains() -> None:
    world = World(manifest(numTrials=50, parallelTrials=2, objective={"metric": METRIC, "goal": 0.5}))
    world.run_to_the_end()
    world.tick()
    assert conditions(world)["Complete"] == "True/GoalReached"
    assert len(world.created) < 50
    assert all(
        entry.state != "Running" or world.runs[entry.run]["spec"]["suspend"] for entry in world.status.trials or ()
    )


def test_suspending_the_sweep_suspends_its_runs_and_lets_them_go_on_after() -> None:
    world = World(manifest(parallelTrials=2))
    world.settle()
    world.tick()
    world.edit(suspend=True)
    world.settle()
    assert [run["spec"]["suspend"] for run in world.runs.values()] == [True, True]
    world.tick()
    world.settle()
    assert world.status.state == "Suspended"
    assert conditions(world) == {"Ready": "False/Suspended", "Suspended": "True/Suspended"}
    assert len(world.created) == 2
    world.edit(suspend=False)
    world.run_to_the_end()
    assert conditions(world)["Suspended"] == "False/Resumed"
    assert world.steps == 4 * 90, "a step was done twice, or left out"


def test_more_failed_trials_than_allowed_end_the_sweep_until_more_are() -> None:
    world = World(manifest(numTrials=6, maxFailedTrials=1))
    for name in ("tune-1", "tune-2"):
        world.settle()
        world.reasons[name] = "the loss is not a number"
        world.tick()
    world.settle()
    assert conditions(world)["Failed"] == "True/TooManyFailedTrials"
    assert "2 trials have failed" in (world.status.message or "")
    assert "the loss is not a number" in (world.status.message or "")
    assert world.created == ["tune-1", "tune-2"]
    world.edit(maxFailedTrials=2)
    world.run_to_the_end()
    assert world.status.state == "Succeeded"
    assert world.status.trial_counts is not None
    assert (world.status.trial_counts.failed, world.status.trial_counts.succeeded) == (2, 4)


def test_a_trial_without_the_metric_has_failed_and_says_which_there_are() -> None:
    world = World(manifest(numTrials=1, maxFailedTrials=3, objective={"metric": "token_accuracy"}))
    world.run_to_the_end()
    assert world.status.state == "Failed"
    assert conditions(world)["Failed"] == "True/NoResult"
    (entry,) = world.status.trials or ()
    assert entry.state == "Failed"
    assert entry.message == (
        "the run has succeeded and has no token_accuracy, which spec.objective.metric asks for; it has eval_loss"
    )


def test_the_metric_of_the_evaluation_is_read_from_there() -> None:
    world = World(manifest(numTrials=1, objective={"metric": "eval/exactMatch", "direction": "Maximize"}))
    world.settle()
    world.advance(world.runs["tune-1"])
    world.runs["tune-1"]["status"] |= {
        "evaluation": {"metrics": [{"name": "exactMatch", "value": "0.25"}]},
        "conditions": [{"type": "Complete", "status": "True"}],
    }
    world.settle()
    assert world.status.best is not None
    assert world.status.best.value == "0.25"


@pytest.mark.parametrize("value", ["nan", "inf", "none"])
def test_a_value_that_is_no_number_is_none(value: str) -> None:
    world = World(manifest(numTrials=1), stride=90)
    world.settle()
    world.tick()
    world.runs["tune-1"]["status"]["trainerStatus"]["metrics"][0]["value"] = value
    world.settle()
    assert [entry.state for entry in world.status.trials or ()] == ["Failed"]


def test_values_that_break_a_rule_only_together_fail_that_trial_alone() -> None:
    model = {"storageUri": "hf://org/name", "adapter": {"lora": {}}}
    run = {**RUN_SPEC, "model": model, "training": {**RUN_SPEC["training"], "method": "SFT"}}
    parameters = [
        {"name": "model.adapter.lora.dora", "choice": {"values": [False, True]}},
        {"name": "model.adapter.lora.initialisation", "choice": {"values": ["Zero", "PiSSA"]}},
    ]
    world = World(
        manifest(algorithm="Grid", numTrials=None, parameters=parameters, template={"spec": run}),
        curve=lambda values, step: 1.0,
    ).run_to_the_end()
    assert [entry.state for entry in world.status.trials or ()] == ["Succeeded", "Succeeded", "Succeeded", "Failed"]
    assert "lora.dora starts from the base's own weights" in str((world.status.trials or ())[3].message)
    assert world.created == ["tune-1", "tune-2", "tune-3"]


def test_a_wrong_value_is_told_in_the_status_and_nothing_is_made() -> None:
    world = World(manifest(parameters=[{"name": "training.learningRate", "double": {"min": 1, "max": 20}}]))
    world.settle()
    assert world.status.state == "Invalid"
    assert world.status.message == (
        "spec.parameters[0] (training.learningRate = 20.0): spec.training.learningRate: 20.0 is not allowed: must be at most 10"
    )
    assert conditions(world) == {"Ready": "False/InvalidSpec", "Stalled": "True/InvalidSpec"}
    assert not world.runs
    assert [notice.type for notice in world.notices] == ["Warning"]


def test_a_deleted_trial_is_made_again_with_the_same_values_while_the_sweep_runs() -> None:
    world = World()
    world.settle()
    before = world.assignments()["tune-1"]
    del world.runs["tune-1"]
    world.settle()
    assert world.created == ["tune-1", "tune-1"]
    assert world.assignments()["tune-1"] == before


def test_after_a_good_end_runs_may_be_deleted_and_the_table_stays() -> None:
    world = World().run_to_the_end()
    best = world.status.best
    world.runs.clear()
    world.settle()
    assert len(world.created) == 4
    assert world.status.best == best
    assert [entry.gone for entry in world.status.trials or ()] == [True] * 4
    world.edit(numTrials=6)
    world.settle()
    assert world.created[4:] == ["tune-5"]
    world.run_to_the_end()
    assert len(world.created) == 6
    assert world.status.summary == "6/6"


def test_more_trials_after_the_end_go_on_with_the_next_number() -> None:
    world = World(manifest(numTrials=2)).run_to_the_end()
    world.edit(numTrials=3)
    world.run_to_the_end()
    assert world.created == ["tune-1", "tune-2", "tune-3"]


def test_a_sweep_that_has_ended_is_not_suspended_any_more() -> None:
    world = World(manifest(numTrials=2)).run_to_the_end()
    world.edit(suspend=True)
    world.settle()
    assert world.status.state == "Succeeded"
    world.edit(numTrials=3)
    world.settle()
    assert world.status.state == "Suspended"
    assert len(world.created) == 2


def test_a_trial_that_is_being_suspended_keeps_its_place_until_its_pod_is_gone() -> None:
    world = World(manifest(numTrials=9, earlyStopping=ASHA), stride=15)
    world.settle()
    world.tick()
    world.settle()
    assert world.runs["tune-1"]["spec"]["suspend"] is True
    assert world.created == ["tune-1"]
    world.tick()
    world.settle()
    assert world.created == ["tune-1", "tune-2"]


@pytest.mark.parametrize(
    "text", ["", "[", "[" * 100_000, "[1]", '{"training.learningRate": "x"}', '{"training.learningRate": 1e999}', "{}"]
)
def test_annotations_that_somebody_has_overwritten_end_nothing(text: str) -> None:
    world = World(manifest(algorithm="TPE", numTrials=12, earlyStopping=ASHA), curve=lambda values, step: 1.0)
    for name in ("assignments", "rungs", "promoted-beyond"):
        while "tune-2" not in world.runs:
            world.settle()
            world.tick()
        given = world.points(world.runs["tune-2"])
        world.points = lambda raw, given=given: given  # type: ignore[method-assign, misc]
        world.runs["tune-2"]["metadata"]["annotations"][f"trainyard.dev/{name}"] = text
        world.settle()
    del world.points  # type: ignore[method-assign]
    world.runs["tune-2"]["metadata"]["annotations"]["trainyard.dev/assignments"] = '{"training.learningRate": "x"}'
    world.run_to_the_end()
    assert world.status.summary == "12/12"


@pytest.mark.parametrize(
    "name", ["tune-0", "tune-501", "tune-01", "tune-x", "tune-", "other-1", "tune-99999999999999999999"]
)
def test_a_name_that_no_trial_has_is_no_trials(name: str) -> None:
    assert number_of("tune", {"metadata": {"name": name}}) is None
    assert number_of("tune", {"metadata": {"name": "tune-500"}}) == 500


@pytest.mark.parametrize("text", ['{"10": 1' + "0" * 400 + "}", '{"' + "9" * 5000 + '": 1}', '{"x": 1, "10": [1]}'])
def test_rungs_that_are_none_are_passed_over(text: str) -> None:
    raw = {"metadata": {"name": "tune-1", "annotations": {"trainyard.dev/rungs": text}}}
    assert set(noted_rungs(raw).values()) <= {None}
    assert set(noted_rungs(raw)) <= {10}


def test_a_cancelled_trial_is_neither_a_failure_nor_made_again() -> None:
    world = World(manifest(numTrials=2, maxFailedTrials=0))
    world.settle()
    failed = {"type": "Failed", "status": "True", "reason": "Cancelled", "message": "cancelled: by hand"}
    world.runs["tune-1"]["status"] = {"state": "Cancelled", "conditions": [failed]}
    world.run_to_the_end()
    assert world.status.state == "Succeeded"
    assert [entry.state for entry in world.status.trials or ()] == ["Cancelled", "Succeeded"]


# ---- stopped early


def raced(**spec: Any) -> World:
    return World(manifest(numTrials=9, earlyStopping=ASHA, **spec)).run_to_the_end()


def test_of_nine_trials_three_train_beyond_the_first_rung_and_one_to_the_end() -> None:
    order = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]  # the worst come last: the first three are never overtaken

    def curve(values: Any, step: int) -> float:
        return float(order[values["training.seed"] - 1]) / step

    seeds = {"name": "training.seed", "int": {"min": 1, "max": 9}}
    world = World(
        manifest(algorithm="Grid", numTrials=9, parallelTrials=9, parameters=[seeds], earlyStopping=ASHA), curve=curve
    ).run_to_the_end()
    by_state: dict[str, list[int]] = {}
    for entry in world.status.trials or ():
        by_state.setdefault(entry.state, []).append(entry.number)
    assert by_state == {"Stopped": [1, 2, 3, 4, 5, 6, 7, 8], "Succeeded": [9]}
    assert [entry.rung for entry in world.status.trials or ()] == [10] * 6 + [30, 30, 30]


def test_a_stopped_trial_is_a_suspended_run_and_goes_on_when_it_is_among_the_best() -> None:
    world = raced(parallelTrials=2)
    assert {notice.reason.value for notice in world.notices} >= {"TrialStopped", "TrialPromoted"}
    stopped = [entry for entry in world.status.trials or () if entry.state == "Stopped"]
    assert stopped
    for entry in stopped:
        run = world.runs[entry.run]
        assert run["spec"]["suspend"] is True
        assert entry.value is not None
    assert world.most_at_once == 2


def test_no_step_is_done_twice_and_far_fewer_than_all() -> None:
    world = raced()
    done = [run["status"]["trainerStatus"]["step"] for run in world.runs.values()]
    assert world.steps == sum(done)
    assert world.steps < 0.6 * 9 * 90


def test_too_few_trials_for_the_rungs_still_bring_one_to_the_end() -> None:
    world = World(manifest(numTrials=2, earlyStopping=ASHA)).run_to_the_end()
    assert world.status.state == "Succeeded"
    states = sorted(entry.state for entry in world.status.trials or ())
    assert states == ["Stopped", "Succeeded"]


def test_after_the_end_people_may_go_on_with_a_stopped_trial() -> None:
    world = raced()
    stopped = next(entry.run for entry in world.status.trials or () if entry.state == "Stopped")
    world.runs[stopped]["spec"]["suspend"] = False
    world.settle()
    assert world.runs[stopped]["spec"]["suspend"] is False


def test_while_the_sweep_runs_it_alone_says_who_trains() -> None:
    world = World(manifest(numTrials=9, earlyStopping=ASHA))
    while not any(run["spec"].get("suspend") for run in world.runs.values()):
        world.settle()
        world.tick()
    name = next(name for name, run in world.runs.items() if run["spec"].get("suspend"))
    world.runs[name]["spec"]["suspend"] = False
    world.settle()
    assert world.runs[name]["spec"]["suspend"] is True


def test_a_trial_without_a_value_at_a_rung_is_stopped_there() -> None:
    world = World(manifest(numTrials=3, parallelTrials=3, earlyStopping=ASHA))
    world.curve = lambda values, step: float("nan") if values == world.assignments()["tune-1"] else bowl(values, step)
    world.run_to_the_end()
    first = next(entry for entry in world.status.trials or () if entry.number == 1)
    assert (first.state, first.rung, first.value) == ("Stopped", 10, None)


def test_a_suspended_sweep_forgets_nobodys_promotion() -> None:
    world = World(manifest(numTrials=9, parallelTrials=3, earlyStopping=ASHA))
    for _ in range(4):
        world.settle()
        world.tick()
    world.settle()
    promoted = [n for n, r in world.runs.items() if r["metadata"]["annotations"].get("trainyard.dev/promoted-beyond")]
    assert promoted
    world.edit(suspend=True)
    world.settle()
    world.tick()
    world.edit(suspend=False)
    world.settle()
    assert all(world.runs[name]["spec"]["suspend"] is False for name in promoted)


def test_a_look_decides_nothing_new_after_it_was_carried_out() -> None:
    world = World(manifest(numTrials=9, parallelTrials=3, earlyStopping=ASHA))
    for _ in range(40):
        world.settle()
        assert not [action for action in world.look().actions if isinstance(action, Create)]
        world.tick()
