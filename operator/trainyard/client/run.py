"""A TrainingRun as its reader sees it: the object of the API server, with names for what is asked for most."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Fate(StrEnum):
    """How a run has ended, or that it has not."""

    OPEN = "Open"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


@dataclass(frozen=True)
class Run:
    """One run at one moment. `raw` is all that the API server has said."""

    raw: Mapping[str, Any]

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.raw.get("metadata") or {}

    @property
    def spec(self) -> Mapping[str, Any]:
        return self.raw.get("spec") or {}

    @property
    def status(self) -> Mapping[str, Any]:
        return self.raw.get("status") or {}

    @property
    def name(self) -> str:
        return str(self.metadata.get("name", ""))

    @property
    def namespace(self) -> str:
        return str(self.metadata.get("namespace", ""))

    @property
    def uid(self) -> str:
        return str(self.metadata.get("uid", ""))

    @property
    def state(self) -> str:
        """One word for people; empty while the operator has not seen the run."""
        return str(self.status.get("state", ""))

    @property
    def message(self) -> str:
        return str(self.status.get("message", ""))

    @property
    def standing(self) -> str:
        """State and message in a line."""
        return f"{self.state}: {self.message}".rstrip(": ") if self.state else "not seen by the operator yet"

    @property
    def metrics(self) -> dict[str, float]:
        """The newest numbers of the training, and those of the evaluation under `eval/`."""
        trained = (self.status.get("trainerStatus") or {}).get("metrics") or ()
        measured = (self.status.get("evaluation") or {}).get("metrics") or ()
        found = [(m["name"], m["value"]) for m in trained] + [(f"eval/{m['name']}", m["value"]) for m in measured]
        return {name: float(value) for name, value in found}

    @property
    def fate(self) -> Fate:
        """Read from the conditions, as programs should."""
        if self.condition("Complete").get("status") == "True":
            return Fate.SUCCEEDED
        failed = self.condition("Failed")
        if failed.get("status") != "True":
            return Fate.OPEN
        return Fate.CANCELLED if failed.get("reason") in ("Cancelled", "Unchanged") else Fate.FAILED

    @property
    def ended(self) -> bool:
        return self.fate is not Fate.OPEN

    @property
    def work_dir(self) -> str:
        """The run's folder on its checkpoint volume."""
        return f"{self.name}-{self.uid[:8]}"

    @property
    def checkpoints_claim(self) -> str:
        """The claim that holds checkpoints and results."""
        named = ((self.spec.get("storage") or {}).get("checkpoints") or {}).get("claimName")
        return str(named or f"{self.name}-checkpoints")

    def condition(self, kind: str) -> Mapping[str, Any]:
        """The condition of a type; empty where there is none."""
        found: Mapping[str, Any]
        for found in self.status.get("conditions") or ():
            if found.get("type") == kind:
                return found
        return {}
