"""From records to token sequences, with a mark on every token that counts for the loss.

* Text counts as a whole. It ends with the end-of-text token and is cut into windows of at most `max_length` tokens, so
  that a long document is trained on to its end.
* Of a prompt with its completion only the completion counts. Both are tokenised apart, so that the border between them is
  the one the model will see when it is asked; longer examples lose their end.
* Of a conversation only what the assistant says counts, including the token that ends its turn. Which characters these are
  is found by rendering the conversation up to each turn with the model's own chat template, so it holds for any template
  that does not rewrite earlier turns; where one does, only the last turn counts.

* A preference is a prompt with each of two completions: two examples that stay together. If nothing is left to learn in one
  of them, both are dropped.
* Of a prompt alone nothing is cut: one that leaves no room for an answer is dropped.

Records are encoded a few hundred at a time, by as many threads as the container has CPUs.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainyard.trainer.data.messages import Record
from trainyard.trainer.errors import invalid_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 256
"""Records encoded at a time."""
SHORTEST = 2
"""Tokens; a sequence of one predicts nothing."""


@dataclass(frozen=True)
class Example:
    """Token ids, and per token whether it counts for the loss (None: all of them)."""

    ids: list[int]
    counts: list[bool] | None
    answer: str | None = None
    """Only of a prompt, which waits for a response: what a right one would be, empty if that is not known."""


@dataclass
class Tally:
    """What happened to the records; part of the manifest and of the dry run's report."""

    records: int = 0
    examples: int = 0
    tokens: int = 0
    truncated: int = 0
    """Records longer than max_length that lost their end. Text never does, it is cut into windows."""
    dropped: int = 0
    """Records with nothing left to learn, because the prompt alone fills max_length or the text is a single token."""
    lengths: Counter[int] = field(default_factory=Counter)
    """Tokens per record before cutting, and how many records have so many."""


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
        for (_, repeat), wholes in zip(batch, self._examples([record for record, _ in batch]), strict=True):
            tally.records += 1
            tally.lengths[max(len(whole.ids) for whole in wholes)] += 1
            kept = 0
            fitting = [list(self._fit(whole, tally)) for whole in wholes]
            for example in itertools.chain(*fitting if all(fitting) else ()):
                kept += 1
                tally.examples += repeat
                tally.tokens += len(example.ids) * repeat
                yield example, repeat
            if not kept:
                tally.dropped += 1

    def _examples(self, records: list[Record]) -> list[list[Example]]:
        """Per record its examples without regard to length: one, or the two of a preference."""
        if not records or "chosen" not in records[0]:
            return [[example] for example in self._whole_examples(records)]
        sides = [
            self._whole_examples([{"prompt": r["prompt"], "completion": r[side]} for r in records])
            for side in ("chosen", "rejected")
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
            return self._conversations([(r["prompt"] + r["completion"], len(r["prompt"]), None) for r in records])
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
        texts = [self._template(r["prompt"], None, ask=True) if chats else r["prompt"] for r in records]
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
            yield Example(ids, counts)

    def _conversations(self, chats: list[tuple[list[Record], int, Any]]) -> list[Example]:
        """`(messages, index of the first message that may count, tools)` each."""
        rendered = [self._render(messages, first, tools) for messages, first, tools in chats]
        encodings = self._backend.encode_batch([text for text, _ in rendered], add_special_tokens=False)
        examples = []
        for (_, spans), encoding in zip(rendered, encodings, strict=True):
            counts = [False] * len(encoding.ids)
            position = 0
            for index, (start, _) in enumerate(encoding.offsets):
                while position < len(spans) and start >= spans[position][1]:
                    position += 1
                counts[index] = position < len(spans) and spans[position][0] <= start
            examples.append(Example(list(encoding.ids), counts))
        return examples

    def _render(self, messages: list[Record], first: int, tools: Any) -> tuple[str, list[tuple[int, int]]]:
        """The conversation as text, and the parts of it that the assistant says."""
        whole = self._template(messages, tools, ask=False)
        spans = []
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index < first:
                continue
            before = self._template(messages[:index], tools, ask=True) if index else ""
            after = whole if index == len(messages) - 1 else self._template(messages[: index + 1], tools, ask=False)
            if whole.startswith(after) and after.startswith(before):
                spans.append((len(before), len(after)))
        return whole, spans

    def _template(self, messages: list[Record], tools: Any, *, ask: bool) -> str:
        import jinja2

        try:
            return str(
                self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=ask)
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(m["role"] for m in messages)
            raise invalid_config(
                f"the model's chat template refuses a conversation with the roles {roles}: {error}",
                hint="bring the messages into the order that the model knows (often: no system message, strictly user and "
                "assistant in turn)",
            ) from error
        except ValueError as error:
            raise invalid_config(
                f"the model's tokenizer cannot render a conversation: {str(error).splitlines()[0]}",
                hint="use a chat model, or format PromptCompletion with plain text",
            ) from error

    def _ids(self, texts: list[str], *, special: bool) -> list[list[int]]:
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=special)]

    def _ended(self, ids: list[int]) -> list[int]:
        return ids if ids and ids[-1] == self._eos else [*ids, self._eos]


def _shape(record: Record) -> list[tuple[str, type]]:
    """What decides how a record is encoded."""
    return [(key, type(value)) for key, value in record.items()]
