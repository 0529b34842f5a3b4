"""What has to be known of a teacher before a training begins: that it has the same tokenizer, and of one on a server, what it says.

A server is asked in the prepare step, for each example as it will be trained (the same token ids), and tells the likeliest tokens
of each position with their log-probabilities:

    <run>/teacher/<key>/<split>/ids.npy         int32 [tokens, top], as tokens.bin; -1 where fewer were told
                               /log_probs.npy   float32 [tokens, top]
                               /done.npy        bool [examples]; who is killed in between asks for what is missing alone

The training opens these files and asks nobody.
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainyard.api.addresses import told
from trainyard.api.run.teacher import TeacherServer
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.access import Credentials, credentials
from trainyard.trainer.data.collect.http import ANSWER_LIMIT, CONNECTIONS, Client, TooLarge
from trainyard.trainer.data.sources import secret_values
from trainyard.trainer.data.store import Sequences
from trainyard.trainer.data.tokenizer import copy_tokenizer, load_tokenizer
from trainyard.trainer.errors import invalid_config, invalid_data, storage
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.bases import Address, model_folder
from trainyard.trainer.volume.commit import Committed

FIELD = "spec.training.teacher"
SPLITS = ("train", "eval")
AT_ONCE = 32
"""Examples between two marks of what is done."""
ENTRY_BYTES = 200
"""Of a token in an answer, at most."""
BY_ID = "token_id:"
"""How a server that was asked to names tokens by their ids."""


@dataclass(frozen=True)
class Told:
    """What a server has told about one split; see the module's text."""

    ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]


def check_same_tokenizer(context: RunContext, tokenizer: Any, place: Path) -> None:
    """Of a teacher by address. `place` is a folder that may be written to.

    Raises:
        UserError: it has another one, or none.
    """
    teacher = context.training.teacher
    if teacher is None or teacher.storage_uri is None:
        return
    uri = teacher.storage_uri
    folder = model_folder(Address(uri, teacher.secret_ref, field=FIELD), context, weights=False)
    own, other = tokenizer.get_vocab(), copy_tokenizer(folder, place, uri=uri).get_vocab()
    differing = sorted(
        {token for token, _ in own.items() ^ other.items()}, key=lambda token: (own.get(token, -1), token)
    )
    if differing:
        token = differing[0]
        raise invalid_config(
            f"{FIELD}.storageUri {uri} has another tokenizer than the model: {len(differing)} of {len(own)} entries differ, as "
            f"{token!r} ({own.get(token, 'none')} here, {other.get(token, 'none')} there)",
            hint="probabilities are compared token by token: use a teacher of the same family, or learn its answers as texts with SFT",
        )


def ask(context: RunContext, data: Committed, reporter: Reporter) -> None:
    """Ask a server for everything that has not been told yet; nothing for other teachers.

    Raises:
        UserError: it does not answer, or with something else than log-probabilities of the text it was given.
    """
    teacher = context.training.teacher
    if teacher is None or teacher.http is None:
        return
    tokenizer = load_tokenizer(context.data_dir / "tokenizer")
    server = Server(context, teacher.http, tokenizer)
    for split in SPLITS:
        sequences = Sequences.open(context.data_dir / split, vocab_size=int(data.manifest["vocabSize"]))
        count = len(sequences.starts) - 1
        if not count:
            continue
        folder = _folder(context, data, teacher.http) / split
        ids, log_probs, done = _tables(folder, int(sequences.starts[-1]), count, teacher.http.top_logprobs)
        missing = np.flatnonzero(~np.asarray(done))
        if len(missing):
            say(
                f"teacher: {len(missing)} of {count} {split} examples to {told(teacher.http.url)}, {ids.nbytes * 2 / 1e6:.1f} MB"
            )
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for start in range(0, len(missing), AT_ONCE):
                chunk = missing[start : start + AT_ONCE]
                for number, found in zip(
                    chunk, pool.map(server.about, [sequences.example(n) for n in chunk]), strict=True
                ):
                    place = slice(int(sequences.starts[number]), int(sequences.starts[number + 1]))
                    ids[place], log_probs[place] = found.ids, found.log_probs
                ids.flush()
                log_probs.flush()
                done[chunk] = True
                done.flush()
                reporter.report(message=f"teacher: {start + len(chunk)} of {len(missing)} {split} examples")


def answers(context: RunContext, data: Committed, split: str) -> Told:
    """What the prepare step has been told.

    Raises:
        UserError: something is missing.
    """
    teacher = context.training.teacher
    assert teacher is not None
    assert teacher.http is not None
    folder = _folder(context, data, teacher.http) / split
    try:
        done = np.load(folder / "done.npy")
        found = Told(np.load(folder / "ids.npy", mmap_mode="r"), np.load(folder / "log_probs.npy", mmap_mode="r"))
    except (OSError, ValueError) as error:
        raise storage(f"{folder} has no answers of the teacher", hint="run the prepare step again") from error
    if not done.all():
        raise storage(
            f"{folder}: {int((~done).sum())} answers of the teacher are missing", hint="run the prepare step again"
        )
    return found


def _folder(context: RunContext, data: Committed, server: TeacherServer) -> Path:
    basis = [data.manifest["key"], data.manifest["digest"], server.url, server.model, server.top_logprobs]
    return context.work_dir / "teacher" / hashlib.sha256(json.dumps(basis).encode()).hexdigest()[:16]


def _tables(folder: Path, tokens: int, examples: int, top: int) -> tuple[Any, Any, Any]:
    """Mapped from their files, which are made if they are not there; `done` last."""
    if not (folder / "done.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name, dtype, fill in (("ids", np.int32, -1), ("log_probs", np.float32, 0)):
            table = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(tokens, top))
            table[:] = fill
            table.flush()
        np.save(folder / "done.tmp.npy", np.zeros(examples, dtype=np.bool_))
        (folder / "done.tmp.npy").rename(folder / "done.npy")
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("ids", "log_probs", "done"))


class Server:
    """An OpenAI-compatible API of completions."""

    def __init__(self, context: RunContext, spec: TeacherServer, tokenizer: Any) -> None:
        secret = secret_values(spec.secret_ref, context.secrets_dir, told=f"{FIELD}.http.secretRef")
        self._client = Client(spec.url, Credentials(**credentials(f"{FIELD}.http", secret)), field="url")
        self._spec = spec
        self._tokenizer = tokenizer
        vocabulary = tokenizer.get_vocab()
        texts: dict[str, int] = {}
        for number in sorted(vocabulary.values()):
            text = tokenizer.decode([number])
            texts[text] = number if text not in texts else -1  # of a part of a character nobody can tell which
        self._numbers = {text: number for text, number in texts.items() if number >= 0}
        self._entries = max(vocabulary.values()) + 1

    def about(self, example: tuple[NDArray[np.int64], NDArray[np.bool_] | None]) -> Told:
        """The likeliest tokens at each position of an example that counts.

        Raises:
            UserError: it does not answer, or not this.
        """
        numbers, counts = example
        top = self._spec.top_logprobs
        asked = {
            "model": self._spec.model,
            "prompt": numbers.tolist(),
            "max_tokens": 1,  # some servers write at least one
            "temperature": 0,
            "echo": True,
            "logprobs": top,
            "return_tokens_as_token_ids": True,
        }
        limit = ANSWER_LIMIT + len(numbers) * (top + 2) * ENTRY_BYTES
        try:
            answer = self._client.post("/completions", asked, limit=limit)
        except TooLarge as error:
            raise self._refused(f"an answer about {len(numbers)} tokens has more than {limit} bytes") from error
        told_tokens, told_tops = self._parts(answer, len(numbers))
        ids = np.full((len(numbers), top), -1, dtype=np.int32)
        log_probs = np.zeros((len(numbers), top), dtype=np.float32)
        for position in range(1, len(numbers)):
            if counts is not None and not counts[position]:
                continue
            self._check_token(position, int(numbers[position]), told_tokens[position])
            found = self._known(told_tops[position])
            if not found:
                raise self._refused(f"position {position} has no log-probabilities of tokens that the model knows")
            for column, (number, log_prob) in enumerate(found[:top]):
                ids[position, column], log_probs[position, column] = number, log_prob
        return Told(ids, log_probs)

    def _parts(self, answer: Any, count: int) -> tuple[list[Any], list[Any]]:
        try:
            found = answer["choices"][0]["logprobs"]
            tokens, tops = found["tokens"], found["top_logprobs"]
        except (TypeError, KeyError, IndexError):
            raise self._refused("an answer has no logprobs with tokens and top_logprobs") from None
        if not isinstance(tokens, list) or not isinstance(tops, list) or min(len(tokens), len(tops)) < count:
            raise self._refused(f"an answer to {count} tokens tells less than all of them (echo)")
        return tokens, tops

    def _known(self, tops: Any) -> list[tuple[int, float]]:
        """The likeliest first."""
        found: dict[int, float] = {}
        for token, log_prob in tops.items() if isinstance(tops, dict) else ():
            number = self._number(token)
            if number is not None and isinstance(log_prob, int | float) and log_prob <= 1e-3:
                found[number] = min(float(log_prob), 0.0)
        return sorted(found.items(), key=lambda entry: (-entry[1], entry[0]))

    def _number(self, token: Any) -> int | None:
        if not isinstance(token, str):
            return None
        if token.startswith(BY_ID) and token[len(BY_ID) :].isdecimal():
            number = int(token[len(BY_ID) :])
            return number if number < self._entries else None
        return self._numbers.get(token)

    def _check_token(self, position: int, wanted: int, named: Any) -> None:
        number = self._number(named)
        text = self._tokenizer.decode([wanted])
        if number != wanted and named != text and text in self._numbers:
            raise invalid_config(
                f"{FIELD}.http {told(self._spec.url)}: model {self._spec.model} has another tokenizer: token {wanted} ({text!r}) at "
                f"position {position} is {named!r} there",
                hint="probabilities are compared token by token: use a teacher of the same family, or learn its answers as texts with SFT",
            )

    def _refused(self, message: str) -> Exception:
        return invalid_data(
            f"{FIELD}.http {told(self._spec.url)}: {message}",
            hint="the server has to answer <url>/completions with echo and logprobs, as vLLM does; or name the teacher by storageUri",
        )
