"""A small hub for models and datasets, with the HTTP answers that the hub's client needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

SHA = hashlib.sha1(b"main").hexdigest()
FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"pickle",
    "evil.py": b"import os",
    "data/train.jsonl": b'{"text": "a"}\n',
    "data/test.jsonl": b'{"text": "b"}\n',
}


class Hub:
    """A public model; org/gated wants the token; everything else is 401, as the real hub answers."""

    def __init__(self, *, host: str = "127.0.0.1", name: str = "org/open", files: Mapping[str, bytes] = FILES) -> None:
        self.tokens: list[str] = []
        self.name, self.files = name, files
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                authorization = self.headers.get("Authorization", "")
                hub.tokens.append(authorization)
                status, body, headers = hub.answer(unquote(self.path.split("?")[0]), authorization)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.url = f"http://{host}:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, path: str, authorization: str) -> tuple[int, bytes, dict[str, str]]:
        parts = path.strip("/").removeprefix("datasets/").replace("api/datasets/", "api/models/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[0:2])
        if name == "org/gated" and authorization != "Bearer hf_secret":
            return (
                403,
                b"{}",
                {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/gated is restricted"},
            )
        if name not in (self.name, "org/gated"):
            return 401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
        if parts[0] == "api":
            revision = parts[5] if len(parts) > 5 else "main"
            if revision not in ("main", SHA):
                return 404, b"{}", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}
            info = {
                "id": name,
                "sha": SHA,
                "siblings": [{"rfilename": f, "size": len(b)} for f, b in self.files.items()],
            }
            if "tree" in parts:
                tree = [
                    {"type": "file", "path": f, "size": len(b), "oid": hashlib.sha1(b).hexdigest()}
                    for f, b in self.files.items()
                ]
                return 200, json.dumps(tree).encode(), {"Content-Type": "application/json"}
            return 200, json.dumps(info).encode(), {"Content-Type": "application/json"}
        body = self.files["/".join(parts[4:])]
        etag = hashlib.sha1(body).hexdigest()
        return 200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": SHA, "Content-Type": "application/octet-stream"}
