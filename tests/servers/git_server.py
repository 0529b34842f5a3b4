"""A git server over HTTP: git's own http-backend behind Python's web server, on a loopback address."""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.webserver import Asked, Reply, web

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@example.org",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}


def git(folder: Path, *words: str) -> str:
    """Run git in a folder."""
    done = subprocess.run(["git", *words], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(folder: Path, files: dict[str, str | bytes], *, branch: str = "main") -> str:
    """Write the files into a repository (made if it is not there), commit them, and return the commit."""
    if not (folder / ".git").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        git(folder, "init", "--quiet", f"--initial-branch={branch}")
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--allow-empty", "--message=x")
    return git(folder, "rev-parse", "HEAD")


@dataclass
class GitServer:
    """`<url>/<name>` is the repository in the folder of that name."""

    url: str
    requests: list[str] = field(default_factory=list)
    refuse_with: int = 0
    """Answer everything with this status; 0: serve."""


@contextmanager
def serving(
    root: Path,
    *,
    login: str = "",
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    moved: Mapping[str, str] | None = None,
) -> Iterator[GitServer]:
    """Serve the repositories below `root`. `login` is user:password, asked for if given; `moved` leads from one path to another."""
    state = GitServer("")
    allowed = "Basic " + base64.b64encode(login.encode()).decode()

    def answer(asked: Asked) -> Reply:
        state.requests.append(f"{asked.method} {asked.target}")
        if state.refuse_with:
            return Reply(status=state.refuse_with)
        for old, new in (moved or {}).items():
            if asked.path.startswith(f"{old}/"):
                return Reply(status=301, headers={"Location": state.url + new + asked.target.removeprefix(old)})
        if login and asked.authorization != allowed:
            return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})
        variables = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": asked.path,
            "QUERY_STRING": urlsplit(asked.target).query,
            "REQUEST_METHOD": asked.method,
            "CONTENT_TYPE": asked.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(asked.body)),
            "HTTP_CONTENT_ENCODING": asked.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": asked.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "a",
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(["git", "http-backend"], input=asked.body, env=variables, capture_output=True, check=True)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines())
        return Reply(content, int(headers.pop("Status", "200 OK").split()[0]), headers)

    with web(answer, tls=tls, host=host) as server:
        state.url = server.url
        yield state
