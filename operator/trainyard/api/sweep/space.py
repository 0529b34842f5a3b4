"""What the parameters of a sweep may be: from points in the unit cube to values, all combinations, and values into a spec. Pure.

Algorithms work on the unit interval for numbers (on a logarithmic scale where that is asked for) and on indexes for choices, so
none of them knows what a parameter means.
"""

import copy
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from trainyard.api.sweep.trainingsweep import Double, Int, Parameter

Assignments = dict[str, Any]
"""Name of each parameter to its value."""
_PART = re.compile(r"[^.\[\]]+|\[[0-9]+\]")
_DIGITS = 6
"""Significant ones of a double: what a learning rate is told with, in a status and in a pod alike."""


def number_of(parameter: Parameter) -> Double | Int | None:
    """Its bounds; None for a choice."""
    return parameter.double or parameter.int


def value_at(parameter: Parameter, unit: float) -> Any:
    """The value at a point of [0, 1)."""
    bounds = number_of(parameter)
    if bounds is None:
        assert parameter.choice is not None
        return parameter.choice.values[min(int(unit * len(parameter.choice.values)), len(parameter.choice.values) - 1)]
    low, high = edges(parameter)
    value = _unscaled(low + unit * (high - low), log=bounds.log)
    if isinstance(bounds, Int):
        return min(max(math.floor(value + 0.5), bounds.min), bounds.max)
    return min(max(float(f"{value:.{_DIGITS}g}"), bounds.min), bounds.max)


def unit_of(parameter: Parameter, value: float) -> float:
    """The point of [0, 1] at which a number lies."""
    bounds = number_of(parameter)
    assert bounds is not None
    low, high = edges(parameter)
    return min(max((_scaled(value, log=bounds.log) - low) / (high - low), 0.0), 1.0)


def fits(parameter: Parameter, value: Any) -> bool:
    """Whether it is one that the parameter may have."""
    bounds = number_of(parameter)
    if bounds is None:
        assert parameter.choice is not None
        return any(type(value) is type(option) and value == option for option in parameter.choice.values)
    return isinstance(value, int | float) and bounds.min <= value <= bounds.max


def edges(parameter: Parameter) -> tuple[float, float]:
    """Where the unit interval begins and ends on the parameter's scale. Each whole number owns half a step to both sides."""
    bounds = number_of(parameter)
    assert bounds is not None
    margin = 0.5 if isinstance(bounds, Int) else 0.0
    return _scaled(bounds.min - margin, log=bounds.log), _scaled(bounds.max + margin, log=bounds.log)


def _scaled(value: float, *, log: bool) -> float:
    return math.log(value) if log else float(value)


def _unscaled(value: float, *, log: bool) -> float:
    return math.exp(value) if log else value


def grid_values(parameter: Parameter) -> Sequence[Any]:
    """All values that algorithm Grid tries. Raises ValueError where their number is not known."""
    if parameter.choice is not None:
        return parameter.choice.values
    bounds = number_of(parameter)
    assert bounds is not None
    if bounds.points is None and isinstance(bounds, Int):
        return range(bounds.min, bounds.max + 1)  # of billions, nobody wants a list
    if bounds.points is None:
        raise ValueError("algorithm Grid needs to know how many values are tried: give points, or a choice of values")
    low, high = _scaled(bounds.min, log=bounds.log), _scaled(bounds.max, log=bounds.log)
    between = (_unscaled(low + (high - low) * n / (bounds.points - 1), log=bounds.log) for n in range(bounds.points))
    if isinstance(bounds, Int):
        return sorted({min(max(math.floor(value + 0.5), bounds.min), bounds.max) for value in between})
    return [min(max(float(f"{value:.{_DIGITS}g}"), bounds.min), bounds.max) for value in between]


def grid_size(parameters: Sequence[Parameter]) -> int:
    """How many combinations there are. Raises ValueError."""
    return math.prod(len(grid_values(parameter)) for parameter in parameters)


def combination(parameters: Sequence[Parameter], index: int) -> Assignments:
    """The combination of this index, from 0; the last parameter changes fastest."""
    found = {}
    for parameter in reversed(parameters):
        values = grid_values(parameter)
        index, at = divmod(index, len(values))
        found[parameter.name] = values[at]
    return {parameter.name: found[parameter.name] for parameter in parameters}


def parts_of(path: str) -> list[str | int]:
    """`datasets[0].weight` as `['datasets', 0, 'weight']`."""
    return [int(part[1:-1]) if part.startswith("[") else part for part in _PART.findall(path)]


def assigned(spec: Mapping[str, Any], assignments: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with the values in it. Raises ValueError where the template has no list, or no such entry, on the way."""
    whole = copy.deepcopy(dict(spec))
    for path, value in assignments.items():
        *above, last = parts_of(path)
        place: Any = whole
        for index, part in enumerate(above):
            below: Any = [] if isinstance([*above, last][index + 1], int) else {}
            place = _step(place, part, path, below)
        _step(place, last, path, None)
        place[last] = value
    return whole


def _step(place: Any, part: str | int, path: str, below: Any) -> Any:
    """What lies at `part`; an object that is not there is made, an entry of a list is not."""
    if isinstance(part, int):
        if not isinstance(place, list) or part >= len(place):
            has = f"{len(place)} entries" if isinstance(place, list) else "no list"
            raise ValueError(f"the template has {has} there: write the list in template.spec, or name another entry")
        return place[part]
    if not isinstance(place, dict):
        raise ValueError(f"the template has no object in which {part!r} could stand: name another field")
    if below == {} and place.get(part) is None:
        place[part] = below
    return place.get(part)
