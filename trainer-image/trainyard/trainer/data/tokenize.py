"""From records to token sequences, with a mark on every token that counts for the loss.

* Text counts as a whole. It ends with the end-of-text token and is cut into windows of at most `max_length` tokens, so
  that a long document is trained on to its end.
* Of a prompt with its completion only the completion counts. Both are tokenised apart, so that the border between them is
  the one the model will see when it is asked; longer examples lose their end.
* Of a conversation only what the assistant says counts, including the token that ends its turn; `chat.py` finds where.
* A preference is a prompt with each of two completions: two examples that stay together. If nothing is left to learn in one
  of them, both are dropped. The first is marked as a good answer, the second as a bad one.
* Of an answer with a label the same counts as of a completion.
* Of a prompt alone nothing is cut: one that leaves no room for an answer is dropped.

Records are encoded a few hundred at a time, by as many threads as the container has CPUs. One that the template or the
tokenizer does not take is counted, and told at the end with all others.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from trainyard.trainer.data.chat import Chat, Refused
from trainyard.trainer.data.messages import Record
from trainyard.trainer.data.records import FAULTS_LISTED
from trainyard.trainer.errors import first_line

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 256
"""Records encoded at a time."""
LONG, SHORT, SILENT = "tooLong", "tooShort", "nothingCounts"
"""Why a record is dropped: the prompt fills max_length, the text is a single token, no answer in it counts."""
SHORTEST = 2
"""Tokens; a sequence of one predicts nothing."""


@dataclass(frozen=True)
class Example:
    """Token ids, and per token whether it counts for the loss (None: all of them)."""

    ids: list[int]
    counts: list[bool] | None
    answer: str | None = None
    """Only of a prompt, which waits for a response: what a right one would be, empty if that is not known."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Only of a conversation: answers in it that do not count, by reason."""
    unshown: Sequence[str] = ()
    """Only of a conversation: parts of it that the chat template passes over."""
    record: int = -1
    """Number of the record that it is of, in the order in which they came."""
    good: bool | None = None
    """Only of an answer that was judged: whether it was found good."""


@dataclass
class Tally:
    """What happened to the records; part of the manifest and of the dry run's report."""

    records: int = 0
    examples: int = 0
    tokens: int = 0
    truncated: int = 0
    """Records longer than max_length that lost their end. Text never does, it is cut into windows."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Records with nothing left to learn, by reason."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers in conversations that do not count, by reason."""
    unshown: Counter[str] = field(default_factory=Counter)
    """Conversations with a part that the chat template passes over, by part."""
    refused: dict[int, str] = field(default_factory=dict)
    """Records that template or tokenizer do not take, by their number in the order in which they came: the first ones."""
    refusals: int = 0
    """How many of them there are."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens per record before cutting, and how many records have so many."""

    def refuse(self, why: str) -> None:
        """Count the record that was counted last as one that cannot be used."""
        self.refusals += 1
        if len(self.refused) < FAULTS_LISTED:
            self.refused[self.records - 1] = why


class Encoder:
    """Encodes records of all formats with one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, *, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._backend: Any = tokenizer.backend_tokenizer
        # A tokenizer.json may carry the truncation and padding of whoever saved it.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._max_length = max_length
        self._eos: int = tokenizer.eos_token_id
        self._chat = Chat(tokenizer)

    def encode(self, records: Iterable[tuple[Record, int]], tally: Tally) -> Iterator[tuple[Example, int]]:
        """Encode records in order. The number beside each (how often it is repeated) passes through to its examples."""
        batch: list[tuple[Record, int]] = []
        for item in records:
            if batch and (len(batch) == BATCH or _shape(item[0]) != _shape(batch[0][0])):
                yield from self._encode_batch(batch, tally)
                batch = []
            batch.append(item)
        yield from self._encode_batch(batch, tally)

    def _encode_batch(self, batch: list[tuple[Record, int]], tally: Tally) -> Iterator[tuple[Example, int]]:
        for (_, repeat), wholes in zip(batch, self._taken([record for record, _ in batch]), strict=True):
            tally.records += 1
            if isinstance(wholes, Refused):
                tally.refuse(str(wholes))
                continue
            tally.lengths[max(len(whole.ids) for whole in wholes)] += 1
            for whole in wholes:
                tally.left_out.update(whole.left_out)
            tally.unshown.update({part for whole in wholes for part in whole.unshown})
            fitting = [list(self._fit(whole, tally)) for whole in wholes]
            if not all(fitting):
                tally.dropped[_why_dropped(next(w for w, fits in zip(wholes, fitting, strict=True) if not fits))] += 1
                continue
            for example in itertools.chain(*fitting):
                tally.examples += repeat
                tally.tokens += len(example.ids) * repeat
                yield replace(example, record=tally.records - 1), repeat

    def _taken(self, records: list[Record]) -> Sequence[list[Example] | Refused]:
        """Per record its examples, or why it is not taken; one that is not makes the batch be encoded one by one."""
        try:
            return self._examples(records)
        except Refused as refused:
            return [refused] if len(records) == 1 else [one for r in records for one in self._taken([r])]

    def _examples(self, records: list[Record]) -> list[list[Example]]:
        """Per record its examples without regard to length: one, or the two of a preference."""
        if not records or "chosen" not in records[0]:
            wholes = self._whole_examples(records)
            return [
                [replace(example, good=record.get("label"))] for example, record in zip(wholes, records, strict=True)
            ]
        sides = [
            [
                replace(whole, good=good)
                for whole in self._whole_examples([{**r, "completion": r[side]} for r in records])
            ]
            for side, good in (("chosen", True), ("rejected", False))
        ]
        return [list(pair) for pair in zip(*sides, strict=True)]

    def _whole_examples(self, records: list[Record]) -> list[Example]:
        """Encode without regard to length. Records of one batch have one shape."""
        if not records:
            return []
        if "text" in records[0]:
            return [Example(self._ended(ids), None) for ids in self._ids([r["text"] for r in records], special=True)]
        if "messages" in records[0]:
            return self._conversations([(r["messages"], 0, r.get("tools")) for r in records])
        if "completion" not in records[0]:
            return self._prompts(records)
        if isinstance(records[0]["prompt"], list):
            return self._conversations(
                [(r["prompt"] + r["completion"], len(r["prompt"]), r.get("tools")) for r in records]
            )
        prompts = self._ids([r["prompt"] for r in records], special=True)
        completions = self._ids([r["completion"] for r in records], special=False)
        examples = []
        for prompt, completion in zip(prompts, completions, strict=True):
            if prompt and prompt[-1] == self._eos:
                prompt = prompt[:-1]  # some tokenizers end every text, also one that goes on
            completion = self._ended(completion)
            examples.append(Example(prompt + completion, [False] * len(prompt) + [True] * len(completion)))
        return examples

    def _prompts(self, records: list[Record]) -> list[Example]:
        """Prompts that wait for a response. No token of them counts."""
        chats = isinstance(records[0]["prompt"], list)
        texts = [self._chat.ask(r["prompt"], r.get("tools")) if chats else r["prompt"] for r in records]
        encoded = [ids[:-1] if ids[-1:] == [self._eos] else ids for ids in self._ids(texts, special=not chats)]
        return [
            Example(ids, [False] * len(ids), record.get("answer", ""))
            for ids, record in zip(encoded, records, strict=True)
        ]

    def _fit(self, whole: Example, tally: Tally) -> Iterator[Example]:
        ids, counts = whole.ids, whole.counts
        if whole.answer is not None:
            if 0 < len(ids) < self._max_length:
                yield whole
            return
        if counts is None:
            for start in range(0, len(ids), self._max_length):
                if len(window := ids[start : start + self._max_length]) >= SHORTEST:
                    yield Example(window, None)
            return
        if len(ids) > self._max_length:
            tally.truncated += 1
            ids, counts = ids[: self._max_length], counts[: self._max_length]
        if len(ids) >= SHORTEST and any(counts[1:]):
            yield Example(ids, counts, good=whole.good)

    def _conversations(self, chats: list[tuple[list[Record], int, Any]]) -> list[Example]:
        """`(messages, index of the first message that may count, tools)` each."""
        rendered = [self._chat.render(messages, first, tools) for messages, first, tools in chats]
        encodings = _encoded(self._backend.encode_batch, [one.text for one in rendered], special=False)
        examples = []
        for one, encoding in zip(rendered, encodings, strict=True):
            counts = [False] * len(encoding.ids)
            position, spans = 0, one.spans
            for index, (start, _) in enumerate(encoding.offsets):
                while position < len(spans) and start >= spans[position][1]:
                    position += 1
                counts[index] = position < len(spans) and spans[position][0] <= start
            examples.append(Example(list(encoding.ids), counts, left_out=one.left_out, unshown=one.unshown))
        return examples

    def _ids(self, texts: list[str], *, special: bool) -> list[list[int]]:
        return [e.ids for e in _encoded(self._backend.encode_batch_fast, texts, special=special)]

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if ids and ids[-1] == self._eos else [*ids, self._eos]


def _encoded(encode: Callable[..., list[Any]], texts: list[str], *, special: bool) -> list[Any]:
    """What the tokenizer makes of texts. Raises Refused, whatever the library raises: it knows no errors of its own."""
    try:
        return encode(texts, add_special_tokens=special)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        told = f"{type(error).__name__}: {first_line(error, 200)}"
        raise Refused(f"the model's tokenizer cannot encode it: {told}") from error


def _why_dropped(whole: Example) -> str:
    if whole.counts is None or len(whole.ids) < SHORTEST:
        return SHORT
    return LONG if whole.answer is not None or any(whole.counts[1:]) else SILENT


def _shape(record: Record) -> list[tuple[str, type]]:
    """What decides how a record is encoded."""
    return [(key, type(value)) for key, value in record.items()]
