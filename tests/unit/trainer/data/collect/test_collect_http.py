"""What a source can do wrong over HTTP, and what is said of it: one server of ours plays all of them."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import records, secret, times
from tests.webserver import Asked, Reply, own_authority, web
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.data.collect import http
from trainyard.trainer.errors import UserError

SERIES = {
    "metric": {"__name__": "up", "job": "a"},
    "values": [[1793498400, "1"], [1793498460, "NaN"], [1793498520, "0.5"]],
}


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made; none of them is waited for."""
    made: list[float] = []
    monkeypatch.setattr(http.time, "sleep", made.append)
    return made


def matrix(asked: Asked) -> Reply:
    """Prometheus with one series."""
    if asked.path == "/api/v1/metadata":
        return Reply({"status": "success", "data": {"up": [{"type": "gauge", "help": "Is it up?", "unit": ""}]}})
    return Reply({"status": "success", "data": {"resultType": "matrix", "result": [SERIES]}})


def metrics(url: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "queries": ["up"], "window": {"days": 1}, **fields}


def test_a_series_with_its_meaning(tmp_path: Path) -> None:
    with web(matrix) as server:
        (found,) = records(tmp_path, prometheus=metrics(server.url))
    assert found == {
        "kind": "series",
        "query": "up",
        "metric": {"__name__": "up", "job": "a"},
        "values": [[1793498400, 1.0], [1793498520, 0.5]],
        "step": 60,
        "metadata": {"type": "gauge", "help": "Is it up?", "unit": ""},
    }


@pytest.mark.parametrize(
    ("values", "header", "expected"),
    [
        ({"token": "t0ken"}, "Authorization", "Bearer t0ken"),
        ({"username": "u", "password": "p"}, "Authorization", "Basic " + base64.b64encode(b"u:p").decode()),
        ({"tenant": "team-a"}, "X-Scope-OrgID", "team-a"),
    ],
)
def test_credentials_are_sent(tmp_path: Path, values: dict[str, str], header: str, expected: str) -> None:
    with web(matrix) as server:
        records(tmp_path, prometheus=metrics(server.url), secretRef=secret(tmp_path, **values))
    assert server.asked
    assert all(asked.headers.get(header) == expected for asked in server.asked)


def test_credentials_do_not_follow_to_another_host(tmp_path: Path) -> None:
    with (
        web(matrix) as other,
        web(lambda asked: Reply(status=307, headers={"Location": other.url + asked.path})) as server,
    ):
        login = secret(tmp_path, token="t0ken", tenant="team-a")
        records(tmp_path, prometheus=metrics(server.url, metadata=False), secretRef=login)
    (asked,) = other.asked
    assert "Authorization" not in asked.headers
    assert "X-Scope-OrgID" not in asked.headers


REFUSALS = [
    (Reply({"error": "who are you?"}, 401), ExitCode.INVALID_DATA, "(HTTP 401): who are you?", "give credentials in secretRef"),
    (Reply(b"no", 403), ExitCode.INVALID_DATA, "access is refused (HTTP 403): no", "secretRef"),
    (Reply(b"404 page not found", 404), ExitCode.INVALID_DATA, "there is nothing (HTTP 404): 404 page not found", "check prometheus.url"),
    (
        Reply({"status": "error", "error": "unexpected end of input"}, 400),
        ExitCode.INVALID_DATA,
        "the server refuses the query 'up' (HTTP 400): unexpected end of input",
        "correct the query",
    ),
    (Reply({"message": "too many samples"}, 422), ExitCode.INVALID_DATA, "too many samples", "correct the query"),
    (Reply(b"<html>login</html>", 200), ExitCode.INVALID_DATA, "the answer is not JSON: <html>login</html>", "is it the server's API?"),
    (Reply(b"<html>busy</html>", 502), ExitCode.SOURCE_UNAVAILABLE, "in 5 tries: HTTP 502", "what was fetched so far is kept"),
    (Reply({"error": "slow down"}, 429), ExitCode.SOURCE_UNAVAILABLE, "gave no answer in 5 tries: HTTP 429: slow down", "is up"),
    (
        Reply(b"", 429, {"Retry-After": "3600"}),
        ExitCode.SOURCE_UNAVAILABLE,
        "HTTP 429; the server asks to wait 3600 s",
        "what was fetched so far is kept",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("reply", "code", "message", "hint"), REFUSALS, ids=lambda v: str(v.status) if isinstance(v, Reply) else ""
)
def test_a_refusal_names_field_address_and_way_out(
    tmp_path: Path, pauses: list[float], reply: Reply, code: ExitCode, message: str, hint: str
) -> None:
    with web(lambda _: reply) as server, pytest.raises(UserError) as caught:
        records(tmp_path, prometheus=metrics(server.url, metadata=False))
    assert caught.value.message.startswith(f"dataset d: prometheus.url {server.url}/api/v1/query_range")
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.exit_code == code


def test_wrong_credentials_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web(lambda _: Reply(status=401)) as server, pytest.raises(UserError) as caught:
        records(tmp_path, prometheus=metrics(server.url), secretRef=secret(tmp_path, token="t0ken-t0ken"))
    assert "check the values in secretRef" in caught.value.hint
    assert "t0ken-t0ken" not in str(caught.value) + capsys.readouterr().out


def test_it_is_tried_again_with_growing_pauses(tmp_path: Path, pauses: list[float]) -> None:
    with web(times(matrix, [Reply(status=503), Reply(status=500), Reply(status=429)])) as server:
        assert records(tmp_path, prometheus=metrics(server.url, metadata=False))
    assert pauses == [1.0, 2.0, 4.0]
    assert len(server.asked) == 4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_believed(tmp_path: Path, pauses: list[float], form: str) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=31), usegmt=True)
    busy = Reply(status=429, headers={"Retry-After": "30" if form == "seconds" else later})
    with web(times(matrix, [busy])) as server:
        assert records(tmp_path, prometheus=metrics(server.url, metadata=False))
    (pause,) = pauses
    assert 28 <= pause <= 31


def test_unknown_host(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(UserError) as caught:
        records(tmp_path, prometheus=metrics("http://no-such-host.invalid:9090", metadata=False))
    assert "the host no-such-host.invalid is unknown" in caught.value.message
    assert caught.value.exit_code == ExitCode.INVALID_DATA
    assert pauses == []


def test_nobody_listens(tmp_path: Path, pauses: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="refused") as caught:
            records(tmp_path, prometheus=metrics(f"http://127.0.0.1:{unused.getsockname()[1]}", metadata=False))
    assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE
    assert pauses == list(http.PAUSES)


def test_no_answer_in_time(tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "READ_TIMEOUT", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        with pytest.raises(UserError, match="no answer in time") as caught:
            records(tmp_path, prometheus=metrics(f"http://127.0.0.1:{silent.getsockname()[1]}", metadata=False))
    assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE


@contextmanager
def cut_short() -> Iterator[str]:
    """A server that promises more than it sends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"status"')

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_a_connection_that_breaks_is_tried_again(tmp_path: Path, pauses: list[float]) -> None:
    with cut_short() as url, pytest.raises(UserError, match="gave no answer in 5 tries") as caught:
        records(tmp_path, prometheus=metrics(url, metadata=False))
    assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE


def test_tls(tmp_path: Path, pauses: list[float]) -> None:
    tls, pem = own_authority(tmp_path)
    with web(matrix, tls=tls) as server:
        with pytest.raises(UserError, match="the server's certificate is not trusted") as caught:
            records(tmp_path, prometheus=metrics(server.url))
        assert "ca.crt" in caught.value.hint
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        assert records(tmp_path, prometheus=metrics(server.url), secretRef=secret(tmp_path, ca_crt=pem.read_text()))


def test_the_same_records_whatever_order_answers_come_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are asked for at once; the first answer is kept back until all others have been asked for."""
    others = threading.Semaphore(0)
    first = threading.Event()

    def answer(asked: Asked) -> Reply:
        begin = int(asked.query["start"])
        if not first.is_set():
            first.set()
            assert others.acquire(timeout=20)
        else:
            others.release()
        return Reply({"data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[begin, "1"]]}]}})

    with web(answer) as server:
        found = records(tmp_path, prometheus=metrics(server.url, metadata=False, spanHours=6))
    starts = [record["values"][0][0] for record in found]
    assert starts == sorted(starts)
    assert len(starts) == 4


def test_without_a_cluster_the_window_ends_with_the_first_attempt(tmp_path: Path) -> None:
    with web(matrix) as server:
        records(tmp_path, moment=None, prometheus=metrics(server.url, metadata=False))
        records(tmp_path, moment=None, prometheus=metrics(server.url, metadata=False))
        assert len(server.asked) == 1
        records(tmp_path, prometheus=metrics(server.url, metadata=False))
    assert len(server.asked) == 2, "another window is another source"


@pytest.mark.parametrize(
    ("until", "moment_matters"), [(None, True), ("2026-10-01T00:00:00Z", False), ("2026-10-01T02:00:00+02:00", False)]
)
def test_the_window_ends_where_it_is_told(tmp_path: Path, until: str | None, moment_matters: bool) -> None:
    window = {"days": 1} | ({"until": until} if until else {})
    with web(matrix) as server:
        records(tmp_path, prometheus={**metrics(server.url, metadata=False), "window": window})
    (asked,) = server.asked
    end = datetime(2026, 11, 1, 2, tzinfo=UTC) if moment_matters else datetime(2026, 10, 1, tzinfo=UTC)
    assert int(asked.query["end"]) == int(end.timestamp()) - 60
    assert int(asked.query["start"]) == int(end.timestamp()) - 86400
