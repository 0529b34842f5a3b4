"""`python -m trainyard.trainer serve`: a trained model behind HTTP, in the shape that clients of Ollama speak.

    POST /api/generate   {"model": "trm-homelab", "prompt": "...", "options": {"max_iterations": 10, "attempts": 1}}
    GET  /api/tags       the one model that is served
    GET  /metrics        for Prometheus
    GET  /healthz

There is no stream of words: the answer comes as a whole, with the confidence that it is right. `prompt` may be a list, and
the response is one then too.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from trainyard.trainer.log import say
from trainyard.trainer.trm.inference import Reasoning, TRMModel

MODEL_NAME = "trm-homelab"
BODY_LIMIT = 1 << 20
MOST_PROMPTS = 256
BUCKETS = (0.005, 0.02, 0.1, 0.5, 2.0, 10.0)
OPTIONS = {"max_iterations": (1, 64), "attempts": (1, 64), "seed": (0, 2**31 - 1)}


class Refused(Exception):
    """A request that cannot be answered: status and what is wrong."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Metrics:
    """Counters of this process, in the text form of Prometheus."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._requests: Counter[int] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0
        self._answers = self._steps = 0
        self._confidence = 0.0

    def request(self, status: int, seconds: float) -> None:
        """A request for answers ended."""
        with self._lock:
            self._requests[status] += 1
            self._seconds += seconds
            for bound in BUCKETS:
                self._buckets[bound] += seconds <= bound

    def answered(self, found: Reasoning) -> None:
        """A problem was answered."""
        with self._lock:
            self._answers += 1
            self._steps += found.steps
            self._confidence += found.confidence

    def text(self) -> str:
        """All of them."""
        with self._lock:
            label = f'model="{self._name}"'
            total = self._requests.total()
            lines = ["# TYPE trainyard_trm_requests_total counter"]
            lines += [
                f'trainyard_trm_requests_total{{{label},code="{c}"}} {n}' for c, n in sorted(self._requests.items())
            ]
            lines.append("# TYPE trainyard_trm_request_seconds histogram")
            bounds = [(f"{b:g}", self._buckets[b]) for b in BUCKETS] + [("+Inf", total)]
            lines += [f'trainyard_trm_request_seconds_bucket{{{label},le="{b}"}} {n}' for b, n in bounds]
            lines.append(f"trainyard_trm_request_seconds_sum{{{label}}} {self._seconds:.6f}")
            lines.append(f"trainyard_trm_request_seconds_count{{{label}}} {total}")
            for name, value in (
                ("answers_total", self._answers),
                ("steps_total", self._steps),
                ("confidence_sum_total", round(self._confidence, 6)),
            ):
                lines += [f"# TYPE trainyard_trm_{name} counter", f"trainyard_trm_{name}{{{label}}} {value}"]
            return "\n".join(lines) + "\n"


def generate(model: TRMModel, name: str, request: Any, metrics: Metrics) -> dict[str, Any]:
    """Answer one request.

    Raises:
        Refused: it is malformed, names another model, or holds a problem that this one cannot read.
    """
    started = time.perf_counter()
    if not isinstance(request, dict) or "prompt" not in request:
        raise Refused(400, 'the body must be an object with "prompt"')
    if request.get("model", name) not in (name, f"{name}:latest"):
        raise Refused(404, f"model {request['model']!r} is not served here, only {name!r}")
    if request.get("stream"):
        raise Refused(400, "the answer comes as a whole: set stream to false, or leave it out")
    prompts = request["prompt"] if _is_list_of_problems(request["prompt"]) else [request["prompt"]]
    if not prompts or len(prompts) > MOST_PROMPTS or not all(isinstance(p, str | list) for p in prompts):
        raise Refused(400, f"prompt must be a text, a list of ids, or a list of 1 to {MOST_PROMPTS} of these")
    options = _options(request.get("options") or {})
    try:
        found = model.reason_all(prompts, **options)
    except (ValueError, TypeError) as error:
        raise Refused(400, str(error)) from error
    for one in found:
        metrics.answered(one)
    many = prompts is request["prompt"]
    return {
        "model": name,
        "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "response": [f.answer for f in found] if many else found[0].answer,
        "done": True,
        "done_reason": "stop",
        "confidence": [f.confidence for f in found] if many else found[0].confidence,
        "steps": [f.steps for f in found] if many else found[0].steps,
        "trajectory": [[s.answer, s.confidence] for s in found[0].trajectory] if not many else None,
        "total_duration": int((time.perf_counter() - started) * 1e9),
    }


def _is_list_of_problems(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)


def _options(given: Any) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise Refused(400, "options must be an object")
    found: dict[str, Any] = {}
    for name, (least, most) in OPTIONS.items():
        if (value := given.get(name)) is not None:
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise Refused(400, f"options.{name} must be a whole number from {least} to {most}")
            found[name] = value
    if (noise := given.get("noise")) is not None:
        if not isinstance(noise, int | float) or isinstance(noise, bool) or not 0 <= noise <= 10:
            raise Refused(400, "options.noise must be a number from 0 to 10")
        found["noise"] = float(noise)
    return found


def make_server(
    model: TRMModel, *, name: str = MODEL_NAME, host: str = "127.0.0.1", port: int = 0
) -> ThreadingHTTPServer:
    """A server that is bound and does not serve yet. Port 0 takes a free one."""
    metrics = Metrics(name)
    one_at_a_time = threading.Lock()  # the network uses all threads by itself

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._send(200, metrics.text().encode(), "text/plain; version=0.0.4")
                case "/healthz":
                    self._send(200, b"ok\n", "text/plain")
                case "/api/tags":
                    details = {"family": "trm", "parameter_size": f"{model.shape.parameters / 1e6:.1f}M"}
                    self._send_json(200, {"models": [{"name": name, "model": name, "details": details}]})
                case path:
                    self._send_json(404, {"error": f"{path} is not served"})

        def do_POST(self) -> None:
            if self.path.partition("?")[0] != "/api/generate":
                self._send_json(404, {"error": f"{self.path} is not served"})
                return
            started = time.perf_counter()
            status, body = self._answer(lambda request: generate(model, name, request, metrics))
            metrics.request(status, time.perf_counter() - started)
            self._send_json(status, body)

        def _answer(self, answer: Callable[[Any], dict[str, Any]]) -> tuple[int, dict[str, Any]]:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > BODY_LIMIT:
                self.close_connection = True
                return 413, {"error": f"the body needs a Content-Length of at most {BODY_LIMIT} bytes"}
            try:
                request = json.loads(self.rfile.read(int(length)))
            except ValueError:
                return 400, {"error": "the body is not JSON"}
            try:
                with one_at_a_time:
                    return 200, answer(request)
            except Refused as error:
                return error.status, {"error": str(error)}

        def _send_json(self, status: int, value: dict[str, Any]) -> None:
            self._send(status, json.dumps(value, ensure_ascii=False).encode(), "application/json")

        def _send(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: requests are counted in the metrics."""

    return ThreadingHTTPServer((host, port), Handler)


def serve(path: str, *, name: str, host: str, port: int) -> None:
    """Serve until the process is told to stop."""
    model = TRMModel.load_from_checkpoint(path)
    server = make_server(model, name=name, host=host, port=port)
    say(f"{name}: {model.shape.parameters:,} weights on http://{host}:{server.server_address[1]}/api/generate")
    server.serve_forever()
