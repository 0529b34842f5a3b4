"""What an Ollama server may say, and how it is told: the words were taken from a real one (0.17.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.webserver import Asked, Reply, web
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.exports.ollama_api import client as module
from trainyard.trainer.exports.ollama_api.client import Ollama

FIELD = "spec.exports[serve].ollama"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSES", (0.0, 0.0))


def refusal(reply: Reply, file: Path | None = None) -> UserError:
    with web(lambda asked: reply) as server:
        ollama = Ollama.at(server.url, field=FIELD, token="s3cret")
        with pytest.raises(UserError) as caught:
            ollama.create({"model": "m"}) if file is None else ollama.push_blob("sha256:0", file)
    assert "s3cret" not in str(caught.value)
    return caught.value


def test_an_error_in_the_middle_of_a_stream_is_one_although_the_status_is_200() -> None:
    error = refusal(Reply(b'{"status":"parsing GGUF"}\n{"error":"unknown tokenizer format"}\n'))
    assert error.message == f"{FIELD}: Ollama refuses: unknown tokenizer format"
    assert error.exit_code == ExitCode.INVALID_CONFIG


def test_a_stream_that_ends_without_success_is_tried_again_later() -> None:
    error = refusal(Reply(b'{"status":"parsing GGUF"}\n'))
    assert error.message.endswith("in the middle of making the model (parsing GGUF)")
    assert error.exit_code == ExitCode.SOURCE_UNAVAILABLE


def test_a_full_disk_is_told_as_one_and_not_asked_three_times(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF")
    said = Reply({"error": "write /models/blobs/sha256-0-partial: no space left on device"}, status=500)
    error = refusal(said, file)
    assert error.exit_code == ExitCode.STORAGE
    assert "Ollama's disk is full" in error.message
    assert "ollama rm" in error.hint


def test_a_blob_is_sent_whole_again_where_the_first_try_fails(tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(b"GGUF and more")
    replies = [Reply({"error": "busy"}, status=503), Reply(status=201)]
    with web(lambda asked: replies.pop(0)) as server:
        Ollama.at(server.url, field=FIELD).push_blob("sha256:0", file)
        assert [one.body for one in server.asked] == [b"GGUF and more"] * 2


def test_a_token_is_sent_and_its_refusal_names_the_secret() -> None:
    asked: list[Asked] = []

    def answer(one: Asked) -> Reply:
        asked.append(one)
        return Reply({"error": "unauthorized"}, status=401)

    with web(answer) as server, pytest.raises(UserError, match="access refused") as caught:
        Ollama.at(server.url, field=FIELD, token="s3cret").version()
    assert asked[0].authorization == "Bearer s3cret"
    assert f"{FIELD}.secretRef needs the key token" in caught.value.hint


def test_what_is_no_ollama_is_told() -> None:
    with web(lambda asked: Reply(b"<html>", status=404)) as server, pytest.raises(UserError, match="is it an Ollama"):
        Ollama.at(server.url, field=FIELD).version()


def test_the_digest_is_that_of_the_tag_and_latest_where_none_is_named() -> None:
    models = [{"name": "m:v1", "digest": "a" * 64}, {"name": "m:latest", "digest": "b" * 64}]
    with web(lambda asked: Reply({"models": models})) as server:
        ollama = Ollama.at(server.url, field=FIELD)
        assert ollama.digest_of("m:v1") == f"sha256:{'a' * 64}"
        assert ollama.digest_of("m") == f"sha256:{'b' * 64}"
        with pytest.raises(UserError, match="does not list it"):
            ollama.digest_of("n")


def test_what_is_no_ollama_server_is_known_by_what_it_answers() -> None:
    for reply in (Reply(b"<html>hello</html>"), Reply({"name": "something"})):
        with web(lambda asked, reply=reply: reply) as server, pytest.raises(UserError) as caught:
            Ollama.at(server.url, field=FIELD).version()
        assert f"{FIELD}.url {server.url}: something answers there, and it is no Ollama server" in str(caught.value)
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG


def test_https_where_http_is_spoken_is_told_at_once(tmp_path: Path) -> None:
    with web(lambda asked: Reply({"version": "1"})) as server:
        url = server.url.replace("http://", "https://")
        with pytest.raises(
            UserError, match=r"the server speaks no TLS: write http:// in spec\.exports\[serve\]\.ollama\.url"
        ):
            Ollama.at(url, field=FIELD).version()
        (tmp_path / "ca.crt").write_text("no certificate")
        with pytest.raises(
            UserError, match=r"ca\.crt in the Secret of spec\.exports\[serve\]\.ollama\.secretRef holds no"
        ):
            Ollama.at(url, field=FIELD, ca_file=str(tmp_path / "ca.crt")).version()
        assert not server.asked
