"""A model in a real Ollama: sent, shown, asked; twice; and what the server does not take."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.servers.ollama_server import ollama
from tests.servers.restartable import Server
from tests.training.small_llama import small_llama
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.exports.gguf_files.convert import convert
from trainyard.trainer.exports.handover.compare import Bar, compare
from trainyard.trainer.exports.handover.questions import questions
from trainyard.trainer.exports.handover.reference import Reference, answers_of
from trainyard.trainer.exports.ollama import creation, dialog_for
from trainyard.trainer.exports.ollama_api.answers import OPTIONS, ask
from trainyard.trainer.exports.ollama_api.client import Ollama
from trainyard.trainer.exports.ollama_api.heard import Ear
from trainyard.trainer.volume.commit import flush_and_hash

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3600)]
FIELD = "spec.exports[serve].ollama"
# As SmolLM2's: ChatML, which Ollama believes it knows, with a system turn of its own that Ollama's lacks.
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its threads wait for each other by spinning, which takes minutes for an answer where something else runs beside them."""
    monkeypatch.setitem(OPTIONS, "num_thread", 1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with ollama(tmp_path_factory.mktemp("ollama")) as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reference]:
    """A small llama's f16 file, and its own answers."""
    folder = small_llama(tmp_path_factory.mktemp("model"), template=TEMPLATE)
    file = folder / "tiny-f16.gguf"
    convert(folder, file, name="tiny", field=FIELD)
    return file, answers_of(folder, questions(Path("nowhere"), chat=True))


def client(server: Server) -> Ollama:
    return Ollama.at(server.url, field=FIELD)


def sent(server: Server, made: tuple[Path, Reference], model: str, **changes: Any) -> str:
    """The digest of a model that was made as the export makes it, but for `changes`."""
    file, reference = made
    digest = f"sha256:{flush_and_hash(file)}"
    if not client(server).has_blob(digest):
        client(server).push_blob(digest, file)
    dialog = dialog_for(reference, file, field=FIELD)
    body = {**creation(model, file.name, digest, dialog, reference), **changes}
    client(server).create({key: value for key, value in body.items() if value is not None})
    return client(server).digest_of(model)


def agreement(server: Server, made: tuple[Path, Reference], model: str) -> Any:
    file, reference = made
    dialog = dialog_for(reference, file, field=FIELD)
    found = ask(client(server), model, reference, dialog=dialog)
    return compare(reference, found, bar=Bar(f"{FIELD}: {model}", True, hears=Ear(reference.tokenizer)))


def test_the_model_answers_there_as_it_was_trained_to(server: Server, made: tuple[Path, Reference]) -> None:
    sent(server, made, "tiny:v1")
    found = agreement(server, made, "tiny:v1")
    assert found.questions == 8
    assert found.ties <= 1, "random weights, so that rounding may decide now and then"
    assert found.share > 0.9
    shown = client(server).show("tiny:v1")
    assert shown is not None
    assert shown["system"] == "Be kind"


def test_ollamas_own_template_for_the_same_file_is_found_out(server: Server, made: tuple[Path, Reference]) -> None:
    sent(server, made, "tiny:own", template=None, system=None)
    with pytest.raises(UserError, match=r"renders the chat as .* instead of '<\|im_start\|>system\\nBe kind"):
        agreement(server, made, "tiny:own")


def test_a_system_text_that_is_left_out_is_found_out(server: Server, made: tuple[Path, Reference]) -> None:
    sent(server, made, "tiny:bare", system=None)
    with pytest.raises(UserError, match="renders the chat as"):
        agreement(server, made, "tiny:bare")


def test_sending_twice_makes_the_same_model(server: Server, made: tuple[Path, Reference]) -> None:
    assert sent(server, made, "tiny:twice") == sent(server, made, "tiny:twice")


def test_what_is_no_model_is_refused_in_the_servers_words(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"no model at all")
    digest = f"sha256:{flush_and_hash(file)}"
    client(server).push_blob(digest, file)
    with pytest.raises(UserError) as caught:
        client(server).create({"model": "broken", "files": {"x.gguf": digest}})
    assert str(caught.value).startswith(f"{FIELD}: Ollama refuses: ")
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    assert client(server).show("broken") is None


def test_a_blob_that_is_not_what_its_digest_says_is_refused(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(b"something")
    with pytest.raises(UserError, match="digest mismatch"):
        client(server).push_blob(f"sha256:{'0' * 64}", file)


def test_a_server_that_is_away_is_tried_again_and_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainyard.trainer.exports.ollama_api.client.PAUSES", (0.1, 0.1))
    away = replace(client(server), url="http://127.0.0.1:9")
    with pytest.raises(UserError, match="did not answer in 3 tries") as caught:
        away.version()
    assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE


def test_what_is_there_after_a_kill_is_used_again(server: Server, made: tuple[Path, Reference]) -> None:
    digest = sent(server, made, "tiny:kept")
    server.stop()
    server.start()
    assert client(server).has_blob(f"sha256:{flush_and_hash(made[0])}")
    assert client(server).digest_of("tiny:kept") == digest
    assert sent(server, made, "tiny:kept") == digest
    assert json.dumps(client(server).show("tiny:kept"))
