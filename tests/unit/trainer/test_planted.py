"""What stands in an address or in what a server says, and must not stand in what a step says.

Signatures and passwords are planted in addresses, redirects and answers; then everything that leaves the process is read:
both streams, what libraries log, the termination message.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import context, secret
from tests.webserver import Asked, Reply, Web, web
from trainyard.api import names
from trainyard.trainer import log
from trainyard.trainer.__main__ import fail
from trainyard.trainer.data import sources
from trainyard.trainer.data.collect import git, http
from trainyard.trainer.data.probe import probe_all
from trainyard.trainer.data.rows import rows_of
from trainyard.trainer.errors import describe
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume import origin

QUERY = "X-Amz-Signature=p1anted&private_token=p1anted"
DOES = ("404", "403", "503", "418", "cut", "elsewhere", "nowhere", "around", "says", "repeats")
"""What the server does with every request."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (sources, git, http, origin):
        monkeypatch.setattr(module, "PAUSES", (0.01, 0.01))


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """Everything that libraries log is printed, as a user's own settings may have it."""
    before, level = logging.getLogRecordFactory(), logging.root.level
    handler = logging.StreamHandler()
    log.cut_addresses()
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.DEBUG)
    yield
    logging.root.removeHandler(handler)
    logging.root.setLevel(level)
    logging.setLogRecordFactory(before)


@pytest.fixture
def closed() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"


def answering(does: str, closed: str) -> Callable[[Asked], Reply]:
    def answer(asked: Asked) -> Reply:
        match does:
            case "cut":
                return Reply(b"{", headers={"Content-Length": "100", "Connection": "close"})
            case "elsewhere":
                return Reply(status=302, headers={"Location": f"http://me:p1anted@{closed}/x?{QUERY}"})
            case "nowhere":
                return Reply(status=302, headers={"Location": f"http://me:p1anted@no-such-host.invalid/x?{QUERY}"})
            case "around":
                return Reply(status=302, headers={"Location": asked.target})
            case "repeats":
                return Reply({"error": f"no {asked.authorization} may enter"}, 403)
            case "says":
                return Reply({"error": f"bad address {asked.target} for http://me:p1anted@host/?{QUERY}"}, 400)
            case status:
                return Reply(f"no {QUERY} here".encode(), int(status))

    return answer


def ended(place: Path, monkeypatch: pytest.MonkeyPatch, dataset: dict[str, Any]) -> None:
    """Read the dataset as a step would, and end as one would."""
    monkeypatch.setenv(names.ENV_TERMINATION_LOG, str(place / "termination"))
    run = context(place, **dataset)
    for one in probe_all(run):
        log.say(f"source {one}")
        print(json.dumps(one.to_json()))
    (place / "staging").mkdir()
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - whichever it is, it is told
        list(rows_of(run.datasets[0], run, place / "staging"))
    fail(describe(caught.value), caught.value, Reporter("prepare", 1), None)


def datasets(server: Web, login: dict[str, str]) -> dict[str, dict[str, Any]]:
    url = f"{server.url}/a.jsonl?{QUERY}"
    asked = {"url": url, "queries": ["up"]}
    return {
        "storageUri": {"storageUri": url},
        "manifest": {"manifest": {"storageUri": url.replace("a.jsonl", "manifest.json")}},
        "code": {"code": {"url": url}},
        "runbook": {"runbook": {"url": url}},
        "prometheus": {"prometheus": asked},
        "loki": {"loki": asked},
        "tempo": {"tempo": {"url": url}},
        "traces": {"traces": {"url": url}},
        "with a token": {"loki": {"url": server.url, "queries": ["up"]}, "secretRef": {"name": "token"}},
        "with a password": {"tempo": {"url": server.url}, "secretRef": {"name": "password"}},
        "s3": {"storageUri": f"s3://bucket/a.jsonl?{QUERY}", "secretRef": login},
    }


@pytest.mark.parametrize("does", DOES)
@pytest.mark.parametrize(
    "kind",
    [
        "storageUri",
        "manifest",
        "code",
        "runbook",
        "prometheus",
        "loki",
        "tempo",
        "traces",
        "with a token",
        "with a password",
        "s3",
    ],
)
def test_nothing_planted_comes_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    closed: str,
    kind: str,
    does: str,
) -> None:
    with web(answering(does, closed)) as server:
        context(tmp_path, inline={"text": "x"})
        host = server.url.removeprefix("http://")
        keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "p1anted"}
        for name, values in (
            ("token", {"token": "p1anted-token"}),
            ("password", {"username": "me", "password": "p1anted-pass"}),
        ):
            secret(tmp_path, **values)
            (tmp_path / "secrets" / "login").rename(tmp_path / "secrets" / name)
        login = secret(tmp_path, AWS_ENDPOINT_URL=f"http://me:p1anted@{host}", **keys)
        ended(tmp_path, monkeypatch, datasets(server, login)[kind])
    said = capfd.readouterr()
    told = {"out": said.out, "err": said.err, "termination": (tmp_path / "termination").read_text()}
    assert "prepare failed: dataset d: " in said.out
    for where, text in told.items():
        assert base64.b64encode(b"me:p1anted-pass").decode() not in text, where
        assert "p1anted" not in text, (where, [line for line in text.splitlines() if "p1anted" in line])


def test_an_unexpected_fault_is_told_without_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(names.ENV_TERMINATION_LOG, str(tmp_path / "termination"))
    try:
        try:
            raise ConnectionError(f"HTTPSConnectionPool(host='h'): Max retries exceeded with url: /a?{QUERY}")
        except ConnectionError as error:
            raise RuntimeError(f"https://me:p1anted@host/a?{QUERY}") from error
    except RuntimeError as error:
        logging.getLogger("library").warning("%s", error)
        fail(describe(error), error, Reporter("prepare", 1), None)
    said = capfd.readouterr()
    assert "RuntimeError: https://host/a?…" in said.out
    assert "Traceback" in said.err
    assert "https://host/a?…" in (tmp_path / "termination").read_text()
    assert "p1anted" not in said.out + said.err + (tmp_path / "termination").read_text()


def test_a_hub_that_sends_on_to_a_signed_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    from tests.unit.trainer.hub_stand_in import SHA, Hub

    hub = Hub()

    def answer(asked: Asked) -> Reply:
        if "/resolve/" in asked.path:
            headers = {"ETag": '"x"', "X-Repo-Commit": SHA, "X-Linked-Size": "7"}
            return Reply(status=302, headers={"Location": f"{server.url}/cdn?{QUERY}", **headers})
        return Reply(f"no {QUERY}".encode(), 403) if asked.path == "/cdn" else hub.answer(asked)

    with web(answer) as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        ended(tmp_path, monkeypatch, {"storageUri": "hf://org/open/data"})
    said = capfd.readouterr()
    assert "prepare failed: hf://org/open/data: the hub did not answer in 3 tries" in said.out
    assert "p1anted" not in said.out + said.err + (tmp_path / "termination").read_text()
