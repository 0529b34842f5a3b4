"""Ended runs that nobody needs any more, and claims that stay behind them. Pure."""

import json
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL, checkpoints_claim_name
from trainyard.cli.printing import seconds_since
from trainyard.client import Run

Raw = Mapping[str, Any]


@dataclass(frozen=True)
class Leftovers:
    """What may go, and what stays although it is old enough, with why."""

    runs: Sequence[Run]
    kept: Sequence[tuple[Run, str]]
    claims: Sequence[str]
    """That no run owns any more once these are gone, and that no other one mounts."""


def leftovers(
    runs: Iterable[Run], schedules: Iterable[Raw], claims: Iterable[Raw], *, seconds: float, selected: Container[str]
) -> Leftovers:
    """Of one namespace: selected runs that ended so many seconds ago. `runs` are all of them, because one may need another."""
    everything = list(runs)
    templates = [json.dumps(raw.get("spec") or {}) for raw in schedules]
    going = [run for run in everything if run.name in selected and run.ended and _age(run) >= seconds]
    kept: list[tuple[Run, str]] = []
    while True:
        staying = [run for run in everything if run not in going]
        needed = [(run, why) for run in going if (why := _why_kept(run, staying, templates))]
        if not needed:
            return Leftovers(going, kept, _free_claims(going, staying, templates, claims))
        kept += needed
        going = [run for run in going if run not in [run for run, _ in needed]]


def claim_of(run: Run) -> str:
    """Of its checkpoints."""
    storage = (run.spec.get("storage") or {}).get("checkpoints") or {}
    return str(storage.get("claimName") or checkpoints_claim_name(run.name))


def _age(run: Run) -> float:
    return seconds_since(run.status.get("completionTime")) or 0.0


def _why_kept(run: Run, staying: Sequence[Run], templates: Sequence[str]) -> str:
    promotions = run.status.get("promotions") or ()
    if promotions and promotions[-1].get("kind") == "Promoted":
        return "its result is promoted"
    reads = re.compile(rf"run://{re.escape(run.name)}(?![-a-z0-9])|pvc://{re.escape(claim_of(run))}/")
    other = next((other.name for other in staying if reads.search(json.dumps(other.spec))), None)
    if other is not None:
        return f"{other} starts from it"
    return "a schedule's runs start from it" if any(map(reads.search, templates)) else ""


def _free_claims(
    going: Sequence[Run], staying: Sequence[Run], templates: Sequence[str], claims: Iterable[Raw]
) -> list[str]:
    mounted = {claim_of(run) for run in staying}
    wanted = {claim_of(run) for run in going} - mounted
    found = []
    for claim in claims:
        name, labels = claim["metadata"]["name"], claim["metadata"].get("labels") or {}
        named = any(f'"{name}"' in text for text in templates) or any(
            f'"{name}"' in json.dumps(r.spec) for r in staying
        )
        if name in wanted and labels.get(MANAGED_BY_LABEL) == MANAGED_BY and not named:
            found.append(str(name))
    return sorted(found)
