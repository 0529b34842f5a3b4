"""A small hub for models and datasets, with the HTTP answers that the hub's client needs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from urllib.parse import unquote

from tests.webserver import Asked, Reply, web

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

    def __init__(self, *, name: str = "org/open", files: Mapping[str, bytes] = FILES) -> None:
        self.tokens: list[str] = []
        self.name, self.files = name, files
        self.url = ""

    @contextmanager
    def running(self, host: str = "127.0.0.1") -> Iterator[Hub]:
        """Serve at this address of the machine."""
        with web(self.answer, host=host) as server:
            self.url = server.url
            yield self

    def answer(self, asked: Asked) -> Reply:
        self.tokens.append(asked.authorization)
        path = unquote(asked.path)
        parts = path.strip("/").removeprefix("datasets/").replace("api/datasets/", "api/models/").split("/")
        name = "/".join(parts[2:4] if parts[0] == "api" else parts[0:2])
        if name == "org/gated" and asked.authorization != "Bearer hf_secret":
            return refused(403, "GatedRepo", "Access to model org/gated is restricted")
        if name not in (self.name, "org/gated"):
            return refused(401, "RepoNotFound", "Repository not found")
        if parts[0] == "api":
            revision = parts[5] if len(parts) > 5 else "main"
            if revision not in ("main", SHA):
                return refused(404, "RevisionNotFound", "Invalid rev id")
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
                return Reply(tree, headers={"Content-Type": "application/json"})
            return Reply(info, headers={"Content-Type": "application/json"})
        body = self.files["/".join(parts[4:])]
        etag = hashlib.sha1(body).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": SHA, "Content-Type": "application/octet-stream"}
        return Reply(body, headers=headers)


def refused(status: int, code: str, message: str) -> Reply:
    return Reply({}, status, {"X-Error-Code": code, "X-Error-Message": message})
