"""The parts of MLflow's REST interface that the trainer speaks, in memory; and with bad moods."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


@contextmanager
def running(host: str = "127.0.0.1") -> Iterator[StandIn]:
    """A server at this address of the machine."""
    state = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self, method: str) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.authorization.add(self.headers.get("Authorization") or "")
            path = self.path.removeprefix("/api/2.0/")
            status, body = 200, {}
            if state.away:
                status = 503
            elif any(word in path for word in state.refuses):
                status, body = 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "not like that"}
            elif method == "GET":
                status, body = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
            elif method == "PUT":
                state.artifacts[path.removeprefix("mlflow-artifacts/artifacts/")] = content
            else:
                body = state.post(path.removeprefix("mlflow/"), json.loads(content))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def do_PUT(self) -> None:
            self._answer("PUT")

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer((host, 0), Handler)
    state.url = f"http://{host}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
