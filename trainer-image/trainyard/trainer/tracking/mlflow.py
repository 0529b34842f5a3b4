"""An MLflow server that follows a training: one run of its own for each TrainingRun.

Which run belongs to a TrainingRun is asked of the server by a tag with the TrainingRun's uid before one is made, so that a
process that dies between making it and writing its id down leaves no second one behind.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from trainyard.trainer.tracking.outbox import Entry
from trainyard.trainer.tracking.rest import Away, Refused, Rest

UID_TAG = "trainyard.dev/run-uid"
METRICS_AT_ONCE = 900
PARAMETERS_AT_ONCE = 90
VALUE_LIMIT = 500
"""Characters of a parameter that every MLflow since 1.28 takes."""
ARTIFACT_SCHEME = "mlflow-artifacts:/"


@dataclass(frozen=True)
class Mlflow:
    """One server and the experiment in it."""

    server: Rest
    experiment: str

    @classmethod
    def at(cls, uri: str, *, experiment: str, secret: dict[str, str]) -> Mlflow:
        """`secret` has username and password, or token; and the path of a CA certificate where one is given."""
        return cls(Rest.at(uri, secret=secret, field="tracking.mlflow"), experiment)

    def open_run(self, *, name: str, uid: str, tags: dict[str, str]) -> tuple[str, str]:
        """Id and artifact address of the run with this uid, which is made where there is none."""
        experiment = self._experiment_id()
        condition = f"tags.`{UID_TAG}` = '{uid}'"
        found = self.server.post("runs/search", {"experiment_ids": [experiment], "filter": condition, "max_results": 1})
        if runs := found.get("runs"):
            run = runs[0]["info"]
        else:
            words = [{"key": k, "value": v} for k, v in {**tags, UID_TAG: uid}.items()]
            body = {"experiment_id": experiment, "run_name": name, "start_time": _now(), "tags": words}
            run = self.server.post("runs/create", body)["run"]["info"]
        return str(run["run_id"]), str(run.get("artifact_uri") or "")

    def send(self, run: str, artifacts: str, entries: list[Entry], *, folder: Path) -> None:
        """Deliver entries of one kind (see `batches`). Paths of artifacts are relative to `folder`."""
        first = entries[0]
        if "metrics" in first:
            points = [
                {"key": key, "value": value, "timestamp": entry["time"], "step": entry["step"]}
                for entry in entries
                for key, value in entry["metrics"].items()
            ]
            for start in range(0, len(points), METRICS_AT_ONCE):
                self.server.post("runs/log-batch", {"run_id": run, "metrics": points[start : start + METRICS_AT_ONCE]})
        elif "parameters" in first:
            words = [{"key": k, "value": str(v)[:VALUE_LIMIT]} for k, v in first["parameters"].items()]
            for start in range(0, len(words), PARAMETERS_AT_ONCE):
                self.server.post("runs/log-batch", {"run_id": run, "params": words[start : start + PARAMETERS_AT_ONCE]})
        elif "tags" in first:
            words = [{"key": k, "value": str(v)} for k, v in first["tags"].items()]
            self.server.post("runs/log-batch", {"run_id": run, "tags": words})
        elif "dataset" in first:
            dataset = {"source_type": "trainyard", "source": "{}", **first["dataset"]}
            use = [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "training"}]}]
            self.server.post("runs/log-inputs", {"run_id": run, "datasets": use})
        elif "status" in first:
            self.server.post("runs/update", {"run_id": run, "status": first["status"], "end_time": first.get("time")})
        elif "artifact" in first:
            self._upload(artifacts, folder, first["artifact"])

    def version_of(self, model: str, alias: str) -> tuple[str, str] | None:
        """Address and number of the version of a registered model that an alias points to; None where there is none."""
        try:
            found = self.server.get("registered-models/alias", name=model, alias=alias)
        except Refused as error:
            # No such model, and (as INVALID_PARAMETER_VALUE) a model without that alias.
            if "RESOURCE_DOES_NOT_EXIST" in str(error) or f"alias {alias} not found" in str(error):
                return None
            raise
        version = found.get("model_version") or {}
        return str(version.get("source") or ""), str(version.get("version"))

    def _experiment_id(self) -> str:
        try:
            found = self.server.get("experiments/get-by-name", experiment_name=self.experiment)
            return str(found["experiment"]["experiment_id"])
        except Refused as error:
            if "RESOURCE_DOES_NOT_EXIST" not in str(error):
                raise
        try:
            return str(self.server.post("experiments/create", {"name": self.experiment})["experiment_id"])
        except Refused as error:
            if "RESOURCE_ALREADY_EXISTS" in str(error):
                raise Away("another run has just made the experiment") from None
            raise

    def _upload(self, artifacts: str, folder: Path, name: str) -> None:
        if not artifacts.startswith(ARTIFACT_SCHEME):
            raise Refused(
                f"the server keeps artifacts in {artifacts.partition(':')[0]} and takes none over HTTP itself: start it with "
                "--serve-artifacts"
            )
        where = artifacts.removeprefix(ARTIFACT_SCHEME).lstrip("/")
        path = folder / name
        if not path.is_file():
            raise Refused(f"{name} is not on the volume any more")
        self.server.put_file(f"mlflow-artifacts/artifacts/{quote(where)}/{quote(name)}", path)


def batches(waiting: list[tuple[int, Entry]]) -> list[tuple[int, list[Entry]]]:
    """Entries that go into one delivery each: neighbours with metrics together, everything else by itself."""
    grouped: list[tuple[int, list[Entry]]] = []
    for mark, entry in waiting:
        if "metrics" in entry and grouped and "metrics" in grouped[-1][1][0]:
            grouped[-1] = (mark, [*grouped[-1][1], entry])
        else:
            grouped.append((mark, [entry]))
    return grouped


def _now() -> int:
    return int(time.time() * 1000)
