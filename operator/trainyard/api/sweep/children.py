"""The runs of a sweep: what they are called and what stands in their spec."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainyard.api.sweep.space import assigned, grid_size
from trainyard.api.sweep.trainingsweep import TrainingSweep, TrainingSweepSpec


@dataclass(frozen=True)
class SweepRef:
    """The sweep whose runs are made."""

    name: str
    namespace: str
    uid: str
    spec: TrainingSweepSpec
    raw_spec: Mapping[str, Any]
    """The spec as the API server returned it: what runs are made of."""

    @classmethod
    def of(cls, raw: Mapping[str, Any], sweep: TrainingSweep) -> "SweepRef":
        """From the object as it was written, and what it was parsed to."""
        return cls(
            name=sweep.metadata.name,
            namespace=sweep.metadata.namespace,
            uid=str(raw["metadata"].get("uid") or ""),
            spec=sweep.spec,
            raw_spec=raw["spec"],
        )

    @property
    def total(self) -> int:
        """How many trials there are to be."""
        return self.spec.num_trials or grid_size(self.spec.parameters)


def trial_name(sweep: str, number: int) -> str:
    """The name of a trial's run."""
    return f"{sweep}-{number}"


def trial_spec(sweep: SweepRef, assignments: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a trial's run. Raises ValueError where a parameter leads nowhere."""
    return assigned(sweep.raw_spec["template"]["spec"], assignments)


def rungs_of(spec: TrainingSweepSpec) -> tuple[int, ...]:
    """The steps at which trials are compared, ascending; empty without earlyStopping."""
    if spec.early_stopping is None:
        return ()
    asha = spec.early_stopping.asha
    return rungs(asha.minimum_steps, asha.reduction_factor, asha.rungs)


def rungs(minimum_steps: int, reduction_factor: int, number: int) -> tuple[int, ...]:
    """Steps that grow by the factor from the first on."""
    return tuple(minimum_steps * reduction_factor**n for n in range(number))
