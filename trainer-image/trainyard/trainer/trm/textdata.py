"""Texts as arrays: the answer's window first, then the problem, then padding.

    [mask] * window   problem   [sep] initial answer   [pad] ...          inputs
    answer [eos] 0 0  0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0   0                  labels, 0 does not count

No id of the answer ever stands in the inputs. (For task Repair there is no window: the answer has the place of the line.)
A tokenizer is trained on the problems and solutions of the training split alone. Problems that are equal but for their
names are one group, and a group that is held out is not trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say
from trainyard.trainer.trm.entities import KINDS, placeholders
from trainyard.trainer.trm.folder import Split, flat_split
from trainyard.trainer.trm.records import Placed, placed_records
from trainyard.trainer.trm.task import TEXT, settings
from trainyard.trainer.trm.texttask import TextExample, TextTask, choose, read_example

PAD, MASK, SEP, EOS, UNKNOWN = range(5)
CONTROL = ("<pad>", "<mask>", "<sep>", "<eos>", "<unknown>")
TOKENIZER_FILE = "tokenizer.json"
CODEC_FILE = "codec.json"
MOST_ENTRIES = 4096
"""Entries of the tokenizer, without codes."""


@dataclass(frozen=True)
class Layout:
    """How an example lies in its sequence."""

    task: TextTask
    window: int
    length: int
    codes: tuple[str, ...] = ()
    first_code: int = 0


class Codec:
    """Texts to ids and back. Stored beside the model, because without it the ids mean nothing."""

    def __init__(self, tokenizer: Tokenizer, layout: Layout) -> None:
        self.tokenizer = tokenizer
        self.layout = layout
        self._codes = {text: layout.first_code + n for n, text in enumerate(layout.codes)}

    @property
    def vocab_size(self) -> int:
        """Ids of texts, then those of codes."""
        return int(self.tokenizer.get_vocab_size()) + len(self.layout.codes)

    def inputs(self, example: TextExample) -> list[int] | None:
        """Ids of a problem, filled up to the length; None if it is too long."""
        if self.layout.task == "Repair":
            ids = self._bytes(example.line)
        else:
            ids = [MASK] * self.layout.window + self._encode(example.problem)
            if example.draft:
                ids += [SEP, *self._encode(example.draft)]
        room = self.layout.length - len(ids)
        return None if room < 0 else ids + [PAD] * room

    def labels(self, example: TextExample) -> list[int] | None:
        """Ids of the solution at their places; None if it is too long."""
        match self.layout.task:
            case "Repair":
                ids = self._bytes(example.raw_solution)
            case "Label":
                ids = [self._codes.get(example.raw_solution, UNKNOWN)]
            case "Codebook":
                ids = [self._codes.get(example.solution, UNKNOWN)]
            case _:
                ids = [*self._encode(example.solution), EOS]
                if len(ids) > self.layout.window:
                    return None
        room = self.layout.length - len(ids)
        return None if room < 0 else ids + [PAD] * room

    def read(self, ids: Sequence[int], example: TextExample) -> str:
        """The answer in a sequence of predicted ids, with the names of the example put back."""
        if self.layout.task in ("Label", "Codebook"):
            place = int(ids[0]) - self.layout.first_code
            text = self.layout.codes[place] if 0 <= place < len(self.layout.codes) else ""
        elif self.layout.task == "Repair":
            text = self._text(list(ids)[: len(self._bytes(example.line))])
        else:
            answer = list(ids)[: self.layout.window]
            text = self._text(answer[: answer.index(EOS)] if EOS in answer else answer)
        return example.names.put_back(text) if self.layout.task != "Label" else text

    def write(self, folder: Path) -> None:
        """Save tokenizer and layout."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(folder / TOKENIZER_FILE))
        (folder / CODEC_FILE).write_text(json.dumps(asdict(self.layout), indent=1))

    @classmethod
    def load(cls, folder: Path) -> Codec:
        """Read what `write` wrote."""
        values = json.loads((folder / CODEC_FILE).read_text())
        layout = Layout(**{**values, "codes": tuple(values["codes"])})
        return cls(Tokenizer.from_file(str(folder / TOKENIZER_FILE)), layout)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)

    def _bytes(self, text: str) -> list[int]:
        """One id per byte: a repaired line keeps its length only in a unit that does not merge."""
        alphabet = self.tokenizer.get_vocab()
        return [alphabet[c] for c in _byte_symbols(text)]

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode([i for i in ids if i > UNKNOWN], skip_special_tokens=False))


def text_splits(context: RunContext, folder: Path) -> tuple[dict[str, Split], dict[str, Any]]:
    """Arrays of every split, with the codec in `folder`/tokenizer.

    Raises:
        UserError: the data does not fit the task, or is too long.
    """
    trm = settings(context)
    found = _grouped(placed_records(context))
    if not found.get("train"):
        raise invalid_data(
            "there is no record to train on", hint="lower split.eval and split.test, or give more records"
        )
    task = choose(trm.task, found["train"], experimental=trm.experimental)
    held_out = [e for name, examples in found.items() if name != "train" for e in examples]
    codec = make_codec(task, found["train"], held_out, max_length=context.training.max_length)
    splits = {}
    for name, examples in found.items():
        rows = [(codec.inputs(e), codec.labels(e)) for e in examples]
        kept = [(given, wanted) for given, wanted in rows if given is not None and wanted is not None]
        if len(kept) < len(rows):
            say(
                f"{name}: {len(rows) - len(kept)} of {len(rows)} records are longer than {codec.layout.length} and left out"
            )
        if kept:
            arrays = (np.array(part, dtype=np.int32) for part in zip(*kept, strict=True))
            splits[name] = flat_split(*arrays, vocab_size=codec.vocab_size, ignored=PAD)
    codec.write(folder / "tokenizer")
    say(f"task {task}: {codec.vocab_size} ids" + (f", {len(codec.layout.codes)} codes" if codec.layout.codes else ""))
    first = [int(codec.tokenizer.token_to_id(placeholders(kind)[0]) or 0) for kind in KINDS]
    entities = [] if task == "Repair" else [[start, start + len(placeholders(KINDS[0]))] for start in first]
    return splits, {"kind": TEXT, "textTask": task, "padding": PAD, "entities": entities}


def make_codec(
    task: TextTask, examples: Sequence[TextExample], held_out: Sequence[TextExample], *, max_length: int
) -> Codec:
    """Tokenizer and window from the training examples; the length is that of the longest problem of all."""
    tokenizer = _train_tokenizer([] if task == "Repair" else [t for e in examples for t in (e.problem, e.solution)])
    codes: tuple[str, ...] = ()
    if task == "Label":
        codes = tuple(sorted({e.raw_solution for e in examples}))
    elif task == "Codebook":
        codes = tuple(sorted({e.solution for e in examples}))
    window = 1 if codes else 0 if task == "Repair" else 1 + max(len(tokenizer.encode(e.solution).ids) for e in examples)
    window = min(window, max_length // 2)
    rough = Codec(tokenizer, Layout(task, window, max_length, codes, tokenizer.get_vocab_size()))
    lengths = [sum(i != PAD for i in ids) for e in (*examples, *held_out) if (ids := rough.inputs(e)) is not None]
    if not lengths:
        raise invalid_data(
            f"all {len(examples) + len(held_out)} problems are longer than {max_length} tokens",
            hint="raise spec.training.maxLength",
        )
    return Codec(tokenizer, Layout(task, window, max(lengths), codes, tokenizer.get_vocab_size()))


def _grouped(records: Iterator[Placed]) -> dict[str, list[TextExample]]:
    """Examples by split, all of a group in one: in that of its record with the smallest hash, so that a split keeps its
    share. Where a dataset of another role has the group, training has not."""
    groups: dict[bytes, list[tuple[Placed, TextExample]]] = {}
    for placed in records:
        texts = (str(placed.record.get(name) or "") for name in ("problem", "initial_answer", "solution"))
        example = read_example(*texts)
        groups.setdefault(example.group, []).append((placed, example))
    found: dict[str, list[TextExample]] = {}
    moved = left_out = 0
    for group in groups.values():
        fixed = any(placed.fixed for placed, _ in group)
        split = min(group, key=lambda one: _hash(one[1]))[0].split
        for placed, example in group:
            place = placed.split if fixed else split
            if fixed and place == "train":
                left_out += 1
                continue
            moved += place != placed.split
            found.setdefault(place, []).append(example)
    if moved:
        say(f"{moved} records changed splits, to those from which they differ in names only")
    if left_out:
        say(f"{left_out} training records differ from held-out ones in names only, and are left out")
    return found


def _hash(example: TextExample) -> bytes:
    return hashlib.sha256(f"{example.raw_problem}\0{example.raw_solution}".encode(errors="surrogatepass")).digest()


def _train_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level pieces, with every placeholder as one of its own. Without texts: bytes alone."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [*CONTROL, *(p for kind in KINDS for p in placeholders(kind))]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_ENTRIES if texts else len(special) + len(alphabet),
        min_frequency=3,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer


def _byte_symbols(text: str) -> str:
    """The printable symbols that stand for the bytes of a text."""
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return "".join(piece for piece, _ in pieces)
