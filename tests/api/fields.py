"""Test values for every field of a schema: what stands at its bounds, and what lies beyond them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.api.manifests import COMPLETE, COMPLETE_SCHEDULES, COMPLETE_SWEEPS, Manifest, run, schedule, sweep
from tests.api.places import Place, at, shown
from trainyard.api.crd import training_run_crd, training_schedule_crd, training_sweep_crd
from trainyard.api.manifest import parse_run, parse_schedule, parse_sweep

Schema = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """One kind of ours: its schema, complete specs that together fill every field, and how they become manifests."""

    fixture: str
    spec: Schema
    complete: tuple[dict[str, Any], ...]
    manifest: Callable[[dict[str, Any]], Manifest]
    parse: Callable[[Any], Any]
    changes_meaning: frozenset[Place] = frozenset()
    """Fields whose other values are right alone but break a rule between fields; the tests of rules have those."""
    free: frozenset[Place] = frozenset()
    """Kubernetes' own types with one field of their own in our schema: other fields pass."""
    elsewhere: frozenset[Place] = frozenset()
    """Parts that are tested in another place, or with another kind."""

    def fields(self) -> list[tuple[Place, Schema]]:
        return [
            (p, node) for p, node in _fields(self.spec) if not any(p[: len(e)] == e and p != e for e in self.elsewhere)
        ]

    def home(self, place: Place) -> dict[str, Any]:
        """A complete spec in which this place is filled."""
        for spec in self.complete:
            try:
                at(spec, place)
            except (KeyError, IndexError):
                continue
            return spec
        raise LookupError(f"no complete manifest fills {shown(place)}")


def _spec_of(crd: Schema) -> Schema:
    spec: Schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec


RUN = Kind(
    fixture="runs",
    spec=_spec_of(training_run_crd()),
    complete=COMPLETE,
    manifest=run,
    parse=parse_run,
    changes_meaning=frozenset(
        {
            ("training", "method"),
            ("datasets", 0, "format"),
            ("datasets", 0, "convertTo"),
            ("datasets", 0, "role"),
            ("phases", 0, "training", "method"),
            ("training", "earlyStopping", "metric"),
            ("phases", 0, "training", "earlyStopping", "metric"),
            ("datasets", 0, "puzzle", "size"),
            ("datasets", 0, "prometheus", "stepSeconds"),
            ("datasets", 0, "prometheus", "spanHours"),
            ("datasets", 0, "selectionStrategy"),
            ("datasets", 0, "filters", 0, "operator"),
            ("exports", 0, "when"),
            ("training", "rewards", 0, "code", "memory"),  # its bounds are those of a quantity
        }
    ),
    free=frozenset({("podTemplate", "env", 0), ("podTemplate", "initContainers", 0, "env", 0)}),
    elsewhere=frozenset({("phases", 0, "training", "rewards")}),
)
SCHEDULE = Kind(
    fixture="schedules",
    spec=_spec_of(training_schedule_crd()),
    complete=COMPLETE_SCHEDULES,
    manifest=schedule,
    parse=parse_schedule,
    elsewhere=frozenset({("template", "spec")}),
)
SWEEP = Kind(
    fixture="sweeps",
    spec=_spec_of(training_sweep_crd()),
    complete=COMPLETE_SWEEPS,
    manifest=sweep,
    parse=parse_sweep,
    changes_meaning=frozenset(
        ("parameters", 0, kind, bound) for kind in ("double", "int") for bound in ("min", "max")
    ),  # min < max, and above 0 on a logarithmic scale
    elsewhere=frozenset({("template", "spec")}),
)


def _fields(schema: Schema, place: Place = ()) -> Iterator[tuple[Place, Schema]]:
    for name, node in schema.get("properties", {}).items():
        here = (*place, name)
        yield here, node
        if node.get("type") == "array":
            yield from _fields(node["items"], (*here, 0))
        yield from _fields(node, here)


def accepted_values(node: Schema) -> Iterator[Any]:
    if "minimum" in node and not node.get("exclusiveMinimum"):
        yield node["minimum"]
    if "maximum" in node and not node.get("exclusiveMaximum"):
        yield node["maximum"]
    yield from node.get("enum", ())
    if node.get("type") == "boolean":
        yield from (True, False)
    if node.get("x-kubernetes-int-or-string"):
        yield from (0, 4, "500m", "1.5Gi", "1e3", "16G")


def refused_values(node: Schema, current: Any) -> Iterator[Any]:
    kind = node.get("type")
    if "minimum" in node:
        yield node["minimum"] if node.get("exclusiveMinimum") else node["minimum"] - 1
    if "maximum" in node:
        yield node["maximum"] if node.get("exclusiveMaximum") else node["maximum"] + 1
    if "enum" in node:
        yield "NoSuchValue"
    if "pattern" in node:
        yield "!no such form ~"
    if kind == "string" and "maxLength" in node:
        yield "x" * (node["maxLength"] + 1)
    if kind == "string" and node.get("minLength"):
        yield ""
    if "maxItems" in node:
        item = current[0]
        yield [
            {**item, "name": f"n{i}"} if isinstance(item, dict) and "name" in item else item
            for i in range(node["maxItems"] + 1)
        ]
    if node.get("minItems"):
        yield []
    if node.get("x-kubernetes-int-or-string"):
        yield from (1.5, "16GB", "-1", True)
    other_types: dict[Any, tuple[Any, ...]] = {
        "integer": ("5", 5.5, True, []),
        "number": ("0.5", True, {}),
        "boolean": ("true", 1),
        "string": (5, True, ["x"]),
        "array": ({}, "x"),
        "object": ([], "x", 5),
    }
    yield from other_types.get(kind, ())
