"""A script by its address and digest, from a real web server: taken as it was meant, and refused otherwise."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import secret
from tests.unit.trainer.data.test_workspace import context
from tests.webserver import Asked, Reply, Web, web
from trainyard.api.conditions import Reason
from trainyard.api.manifest import InvalidManifest
from trainyard.trainer.context import RunContext
from trainyard.trainer.data import script as fetching
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.errors import UserError
from trainyard.trainer.reporter import Reporter

CONTENT = b"print('hello')\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
LOGIN = "Basic " + base64.b64encode(b"reader:secret").decode()


@pytest.fixture
def server() -> Iterator[Web]:
    def answer(asked: Asked) -> Reply:
        if asked.path.startswith("/private/") and asked.authorization != LOGIN:
            return Reply(b"who are you?", 401)
        if asked.path.startswith("/status/"):
            return Reply(b"", int(asked.path.split("/")[2]))
        if asked.path.startswith("/moved/"):
            return Reply(b"", 302, {"Location": "/files/train.py"})
        return Reply(CONTENT) if asked.path.endswith("/train.py") else Reply(b"", 404)

    with web(answer) as running:
        yield running


def run_of(place: Path, url: str, digest: str = DIGEST, **more: Any) -> RunContext:
    workspace = {"script": {"url": url, "sha256": digest, **more}}
    return context(place, {}, storage={"workspace": workspace})


@pytest.mark.parametrize("path", ["files/train.py", "moved/train.py", "files/train.py?raw=true"])
def test_the_file_is_there_under_its_name(tmp_path: Path, server: Web, path: str) -> None:
    run, reporter = run_of(tmp_path, f"{server.url}/{path}"), Reporter("prepare", 1)
    prepare(run, reporter)
    assert (run.run_dir / "workspace" / "train.py").read_bytes() == CONTENT
    told = (reporter.final_record("Succeeded").provenance or {})["workspace"]
    assert told.endswith(f"@sha256:{DIGEST}")
    server.asked.clear()
    prepare(run, Reporter("prepare", 2))
    assert server.asked == [], "later attempts have the same file"


def test_a_login_comes_from_the_secret(tmp_path: Path, server: Web) -> None:
    url = f"{server.url}/private/train.py"
    with pytest.raises(UserError, match=r"access is refused \(HTTP 401\).*give secretRef"):
        prepare(run_of(tmp_path, url), Reporter("prepare", 1))
    run = run_of(tmp_path, url, secretRef=secret(tmp_path, username="reader", password="secret"))
    prepare(run, Reporter("prepare", 1))
    assert (run.run_dir / "workspace" / "train.py").exists()


@pytest.mark.parametrize(
    ("path", "digest", "told", "reason"),
    [
        ("files/train.py", "0" * 64, f"has the sha256 {DIGEST}, and", Reason.INVALID_CONFIG),
        ("files/gone.py", DIGEST, "HTTP 404", Reason.INVALID_CONFIG),
        ("status/503/train.py", DIGEST, "answers HTTP 503", Reason.SOURCE_UNAVAILABLE),
    ],
)
def test_what_is_not_the_file_leaves_nothing(
    tmp_path: Path, server: Web, path: str, digest: str, told: str, reason: Reason
) -> None:
    run = run_of(tmp_path, f"{server.url}/{path}", digest)
    with pytest.raises(UserError, match=told) as caught:
        prepare(run, Reporter("prepare", 1))
    assert caught.value.reason is reason
    assert caught.value.message.startswith("spec.storage.workspace.script.url")
    assert list(run.run_dir.iterdir()) == []


def test_a_file_that_is_no_script_is_refused(tmp_path: Path, server: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", len(CONTENT) - 1)
    with pytest.raises(UserError, match="which is no script"):
        prepare(run_of(tmp_path, f"{server.url}/files/train.py"), Reporter("prepare", 1))


def test_a_host_that_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the host nobody\.invalid is unknown") as caught:
        prepare(run_of(tmp_path, "http://nobody.invalid/train.py"), Reporter("prepare", 1))
    assert caught.value.reason is Reason.INVALID_CONFIG


def test_without_a_digest_there_is_no_script(tmp_path: Path) -> None:
    with pytest.raises(InvalidManifest, match="sha256"):
        run_of(tmp_path, "https://files.example.org/train.py", "")
