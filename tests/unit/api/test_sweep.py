"""The space of a sweep's parameters, where they lead, and what is known early to be wrong."""

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.controller.sweeps.world import ASHA, RATE, RUN_SPEC, manifest, reference
from trainyard.api.sweep.children import rungs_of
from trainyard.api.sweep.space import assigned, combination, grid_size, grid_values, unit_of, value_at
from trainyard.api.sweep.trainingsweep import Parameter
from trainyard.api.sweep.validity import faults


def parameter(**fields: Any) -> Parameter:
    return Parameter.model_validate({"name": "training.learningRate", **fields})


def wrong(**spec: Any) -> list[str]:
    return faults(reference(manifest(**spec)))


@pytest.mark.parametrize(
    ("fields", "values"),
    [
        ({"double": {"min": 1e-5, "max": 1e-1, "log": True, "points": 5}}, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        ({"double": {"min": 0, "max": 1, "points": 3}}, [0, 0.5, 1]),
        ({"int": {"min": 1, "max": 4}}, [1, 2, 3, 4]),
        ({"int": {"min": 1, "max": 64, "log": True, "points": 4}}, [1, 4, 16, 64]),
        ({"int": {"min": 1, "max": 3, "points": 9}}, [1, 2, 3]),
        ({"choice": {"values": ["a", 1, True]}}, ["a", 1, True]),
    ],
)
def test_the_values_of_a_grid(fields: dict[str, Any], values: list[Any]) -> None:
    assert list(grid_values(parameter(**fields))) == values


def test_a_grid_is_every_combination_in_order() -> None:
    two = [
        Parameter.model_validate({"name": f"training.{name}", "choice": {"values": values}})
        for name, values in (("seed", [1, 2]), ("optim", ["x", "y"]))
    ]
    assert grid_size(two) == 4
    assert [tuple(combination(two, n).values()) for n in range(4)] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


def test_the_first_of_billions_of_combinations_cost_nothing() -> None:
    seeds = Parameter.model_validate({"name": "training.seed", "int": {"min": 0, "max": 2**31 - 1}})
    assert grid_size([seeds] * 3) == 2**93
    assert combination([seeds], 7) == {"training.seed": 7}


@pytest.mark.parametrize("value", [1e-5, 3e-4, 1e-1])
def test_a_value_and_its_point_lead_to_each_other(value: float) -> None:
    rate = parameter(double={"min": 1e-5, "max": 1e-1, "log": True})
    assert value_at(rate, unit_of(rate, value)) == pytest.approx(value, rel=1e-5)


def test_values_are_put_where_the_path_leads_and_the_template_stays() -> None:
    template = {"datasets": [{"name": "a"}], "args": ["--rate", "x"], "training": {"method": "SFT"}}
    before = copy.deepcopy(template)
    found = assigned(
        template,
        {"datasets[0].weight": 2, "args[1]": "0.1", "training.extraArgs.beta": 0.5, "model.adapter.lora.rank": 8},
    )
    assert found == {
        "datasets": [{"name": "a", "weight": 2}],
        "args": ["--rate", "0.1"],
        "training": {"method": "SFT", "extraArgs": {"beta": 0.5}},
        "model": {"adapter": {"lora": {"rank": 8}}},
    }
    assert template == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("datasets[1].weight", "the template has 1 entries there"),
        ("training.learningRate.x", "no object in which 'x' could stand"),
        ("args[0]", "the template has no list there"),
    ],
)
def test_a_path_that_leads_nowhere_says_so(path: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("'", ".")):
        assigned({"datasets": [{}], "training": {"learningRate": 1}}, {path: 1})


@pytest.mark.parametrize(
    "name",
    ["image", "podTemplate.volumes[0].name", "model.storageUri", "exports[0].name", "podTemplate.env[0].valueFrom"],
)
def test_what_makes_pods_or_names_secrets_is_no_place_for_a_parameter(name: str) -> None:
    with pytest.raises(ValidationError):
        Parameter.model_validate({"name": name, "choice": {"values": ["a"]}})


def test_a_good_sweep_has_no_faults() -> None:
    assert wrong() == []
    assert wrong(earlyStopping=ASHA) == []


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"parameters": [RATE, RATE]}, "spec.parameters[1].name: training.learningRate stands twice"),
        (
            {"parameters": [{"name": "training.seed", "choice": {"values": [1, {"a": 1}]}}]},
            "spec.parameters[0].choice.values: {'a': 1} is not allowed",
        ),
        (
            {"parameters": [{"name": "training.learnRate", "choice": {"values": [1]}}]},
            "spec.parameters[0] (training.learnRate = 1): spec.training.learnRate: unknown field; did you mean learningRate?",
        ),
        ({"algorithm": "Grid"}, "spec.parameters[0]: algorithm Grid needs to know how many values"),
        (
            {"algorithm": "Grid", "parameters": [{"name": "training.seed", "int": {"min": 1, "max": 3}}]},
            "spec.numTrials: 4 is not allowed: the grid has 3 combinations",
        ),
        (
            {
                "algorithm": "Grid",
                "numTrials": None,
                "parameters": [{"name": "training.seed", "int": {"min": 0, "max": 2**31 - 1}}],
            },
            "spec.parameters: the grid has 2147483648 combinations, more than 500",
        ),
        (
            {"template": {"spec": {**RUN_SPEC, "training": {"method": "Pretrain", "maxSteps": 10}}}},
            "spec.objective.metric: eval_loss is measured every training.evalSteps",
        ),
        (
            {
                "objective": {"metric": "eval/loss"},
                "template": {"spec": {**RUN_SPEC, "evaluation": {"enabled": False}}},
            },
            "spec.objective.metric: eval/loss is measured by the evaluation, which template.spec does not ask for",
        ),
        (
            {"earlyStopping": {"asha": {"minimumSteps": 5}}},
            "spec.earlyStopping.asha.minimumSteps: at the first rung, step 5, there is no eval_loss yet: training.evalSteps is 10",
        ),
        (
            {"earlyStopping": {"asha": {"minimumSteps": 10, "rungs": 3}}},
            "spec.earlyStopping.asha.rungs: the last rung, step 90, does not come before the end of the training, step 90",
        ),
    ],
)
def test_what_is_wrong_is_known_before_a_trial_is_made(spec: dict[str, Any], fault: str) -> None:
    (found,) = wrong(**spec)
    assert found.startswith(fault)


def test_rungs_grow_by_the_factor() -> None:
    sweep = reference(manifest(earlyStopping={"asha": {"minimumSteps": 10, "reductionFactor": 4, "rungs": 3}}))
    assert rungs_of(sweep.spec) == (10, 40, 160)
    assert rungs_of(reference(manifest()).spec) == ()


def test_sweep_names_leave_room_for_the_number() -> None:
    raw = manifest()
    raw["metadata"]["name"] = "a" * 47
    with pytest.raises(ValidationError, match="at most 46"):
        reference(raw)
