"""The parts of MLflow's REST interface that the trainer speaks, in memory; and with bad moods."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.webserver import Asked, Reply, web

Object = dict[str, Any]


class StandIn:
    """What the server has been told, and how it answers."""

    def __init__(self) -> None:
        self.metrics: list[tuple[str, float, int]] = []
        self.parameters: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.datasets: list[Object] = []
        self.statuses: list[str] = []
        self.artifacts: dict[str, bytes] = {}
        self.runs: list[Object] = []
        self.away = False
        """Every request is answered with 503."""
        self.refuses: set[str] = set()
        """Requests whose path contains one of these are answered with 400."""
        self.authorization: set[str] = set()
        self.url = ""

    def post(self, what: str, body: Object) -> Object:
        match what:
            case "experiments/create":
                return {"experiment_id": "7"}
            case "runs/search":
                uid = body["filter"].split("'")[1]
                return {"runs": [r for r in self.runs if uid in json.dumps(r)]}
            case "runs/create":
                number = f"run{len(self.runs)}"
                info = {"run_id": number, "artifact_uri": f"mlflow-artifacts:/7/{number}/artifacts"}
                self.runs.append({"info": info, "tags": body["tags"], "name": body["run_name"]})
                return {"run": self.runs[-1]}
            case "runs/log-batch":
                self.metrics += [(m["key"], m["value"], m["step"]) for m in body.get("metrics", ())]
                self.parameters |= {p["key"]: p["value"] for p in body.get("params", ())}
                self.tags |= {t["key"]: t["value"] for t in body.get("tags", ())}
            case "runs/log-inputs":
                self.datasets += [d["dataset"] for d in body["datasets"]]
            case "runs/update":
                self.statuses.append(body["status"])
            case _:
                raise AssertionError(what)
        return {}

    def answer(self, asked: Asked) -> Reply:
        self.authorization.add(asked.authorization)
        path = asked.path.removeprefix("/api/2.0/")
        if self.away:
            return Reply({}, 503)
        if any(word in path for word in self.refuses):
            return Reply({"error_code": "INVALID_PARAMETER_VALUE", "message": "not like that"}, 400)
        if asked.method == "GET":
            return Reply({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}, 404)
        if asked.method == "PUT":
            self.artifacts[path.removeprefix("mlflow-artifacts/artifacts/")] = asked.body
            return Reply({})
        return Reply(self.post(path.removeprefix("mlflow/"), json.loads(asked.body)))


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[StandIn]:
    """A server at this address of the machine."""
    state = StandIn()
    with web(state.answer, host=host) as server:
        state.url = server.url
        yield state
