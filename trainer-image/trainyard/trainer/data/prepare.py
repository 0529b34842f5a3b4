"""The prepare step: from the manifest's datasets to packed token sequences on the run's volume.

It needs no accelerator and no torch, so a GPU is not held while data is fetched, and a fault in line seven of a file comes
up within seconds. The order:

    fetch -> read and check every record -> decide use and split -> tokenizer -> tokenise -> pack -> commit

Records pass through one at a time; between reading and tokenising they lie in a spool file, because what `limit` and
`split` keep is known only when all have been seen. The result is one committed folder. If it is there already, made from
the same specification, the step ends at once, which is what happens after a restart.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.api.dataset import Dataset
from trainyard.api.progress import DatasetRecord
from trainyard.trainer.commit import Committed, commit_folder, find_damage, read_committed, remove_leftovers
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.plain import plain_text
from trainyard.trainer.data.collect.run import collected, forget, source_of
from trainyard.trainer.data.formats import Record, check
from trainyard.trainer.data.readers import Fault, Row, read_inline_text, read_rows
from trainyard.trainer.data.sources import fetch, format_of
from trainyard.trainer.data.split import Assignment, assign, record_hash, repetitions
from trainyard.trainer.data.store import write_split
from trainyard.trainer.data.tokenize import Encoder, Tally
from trainyard.trainer.data.tokenizer import copy_tokenizer, train_tokenizer
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.known_names import check_names
from trainyard.trainer.ledger import LEDGER
from trainyard.trainer.log import say
from trainyard.trainer.models.source import local_folder
from trainyard.trainer.phases import SHARED_TOKENIZER
from trainyard.trainer.progress import Reporter

LAYOUT = 1
"""Raised when the files of prepared data change their meaning, so that older ones are made anew."""
FAULTS_LISTED = 20
SPLITS = ("train", "eval", "test")


def prepare(context: RunContext, reporter: Reporter) -> None:
    """Make `context.data_dir`, or find that it is there."""
    reporter.report(phase="prepare", percentage=0.0)
    remove_leftovers(context.work_dir)
    key = specification_key(context)
    present = read_committed(context.data_dir)
    if present is not None and present.manifest.get("key") == key and find_damage(present, hashes=False) is None:
        say("the prepared data is complete and made from this specification: nothing to do")
    else:
        if not context.run.spec.command:
            check_names(context)
        started = time.monotonic()
        make = write_records if context.run.spec.command else build
        present = commit_folder(context.data_dir, lambda folder: make(context, reporter, folder), key=key)
        forget(context)
        say(f"prepared {present.bytes / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    note_dataset(present)
    _prefetch_model(context, reporter)
    reporter.report(percentage=100.0, milestone=True)


def specification_key(context: RunContext) -> str:
    """Digest of everything in the manifest that the prepared data depends on."""
    basis: dict[str, Any] = {"layout": LAYOUT, "datasets": [dataset.model_dump() for dataset in context.datasets]}
    if not context.run.spec.command:
        model = context.model
        own = model.scratch.tokenizer.model_dump() if model.scratch else model.storage_uri
        basis["tokenizer"] = context.shared_tokenizer or own
        basis["maxLength"] = context.training.max_length
        basis["packing"] = context.training.packing
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()


def write_records(context: RunContext, reporter: Reporter, folder: Path) -> dict[str, Any]:
    """For a script of the user's own, which tokenises as it likes: the checked records as `<split>.jsonl`."""
    staging = folder / "staging"
    staging.mkdir()
    pool = collect(context, staging)
    digest = hashlib.sha256()
    splits = {}
    for split in SPLITS:
        count = 0
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8", errors="surrogatepass") as stream:
            for record, repeat in pool.records(split, digest):
                count += 1
                stream.write((json.dumps(record, ensure_ascii=False) + "\n") * repeat)
        splits[split] = {"records": count, "tokens": 0}
        if count:
            say(f"{split}: {count} records in {split}.jsonl")
        else:
            (folder / f"{split}.jsonl").unlink()
    shutil.rmtree(staging)
    return {"digest": digest.hexdigest(), "splits": splits}


def build(context: RunContext, reporter: Reporter, folder: Path) -> dict[str, Any]:
    """Fill `folder`. Returns the facts for its manifest."""
    staging = folder / "staging"
    staging.mkdir()
    pool = collect(context, staging)
    reporter.report(percentage=30.0, message=f"{pool.total} records read")

    if context.phase is not None:
        shared = context.run_dir / SHARED_TOKENIZER
        tokenizer = copy_tokenizer(shared, folder / "tokenizer", uri=str(shared))
    else:
        tokenizer = make_tokenizer(context, folder / "tokenizer", lambda: pool)
    reporter.report(percentage=50.0)

    encoder = Encoder(tokenizer, max_length=context.training.max_length)
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    digest = hashlib.sha256()
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        tally = Tally()
        sequences = write_split(
            folder / split,
            encoder.encode(pool.records(split, digest), tally),
            vocab_size=vocab_size,
            max_length=context.training.max_length,
            packing=context.training.packing,
        )
        splits[split] = {
            "records": tally.records,
            "examples": tally.examples,
            "sequences": sequences,
            "tokens": tally.tokens,
            "truncated": tally.truncated,
            "dropped": tally.dropped,
        }
        if tally.records:
            _say_split(split, tally, sequences, context.training.max_length)
    if not splits["train"]["sequences"]:
        raise invalid_data(
            f"nothing is left to train on: all {splits['train']['records']} training records are too long or too short",
            hint=f"raise spec.training.maxLength (now {context.training.max_length}) above the length of the prompts",
        )
    shutil.rmtree(staging)
    return {
        "digest": digest.hexdigest(),
        "splits": splits,
        "vocabSize": vocab_size,
        "maxLength": context.training.max_length,
        "packing": context.training.packing,
    }


def make_tokenizer(context: RunContext, folder: Path, pool: Callable[[], Pool]) -> Any:
    """Train the tokenizer on the training records, or copy the one that the spec names."""
    model = context.model
    if model.scratch is not None and model.scratch.tokenizer.train_vocab_size is not None:
        started = time.monotonic()
        texts = (text for record, _ in pool().records("train") for text in texts_of(record))
        tokenizer = train_tokenizer(texts, model.scratch.tokenizer.train_vocab_size, folder)
        say(f"tokenizer trained: {len(tokenizer)} entries in {time.monotonic() - started:.1f} s")
        return tokenizer
    uri = model.scratch.tokenizer.storage_uri if model.scratch else model.storage_uri
    assert uri is not None
    source = local_folder(uri, context=context, secret_ref=model.secret_ref, weights=False)
    return copy_tokenizer(source, folder, uri=uri)


@dataclass
class Pool:
    """All checked records of a run, spooled, with their hashes and what they are for."""

    parts: list[tuple[Dataset, Path, array[int], Assignment]] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Records read, whether used or not."""
        return sum(len(hashes) for _, _, hashes, _ in self.parts)

    def records(self, split: str, digest: Any = None) -> Iterator[tuple[Record, int]]:
        """The records of a split in order, each with the number of times an epoch sees it. `digest` is updated with them."""
        for dataset, spool, hashes, assignment in self.parts:
            taken = 0
            if digest is not None:
                digest.update(json.dumps([split, dataset.name, dataset.format, dataset.weight]).encode())
            with open(spool, "rb") as stream:
                for line, value in zip(stream, hashes, strict=True):
                    place = assignment.split_of(value)
                    if place is None or (dataset.limit is not None and taken >= dataset.limit):
                        continue
                    taken += 1  # equal records have equal hashes, so the threshold alone may let a few too many in
                    if place != split:
                        continue
                    repeat = repetitions(dataset.weight, value) if split == "train" else 1
                    if repeat:
                        if digest is not None:
                            digest.update(line)
                        yield json.loads(line), repeat


@dataclass
class Faults:
    """What is wrong with the data: the first few in full, all of them counted."""

    listed: list[Fault] = field(default_factory=list)
    count: int = 0

    def add(self, fault: Fault) -> None:
        """Count it, and keep it if it is among the first."""
        self.count += 1
        if len(self.listed) < FAULTS_LISTED:
            self.listed.append(fault)

    def raise_if_any(self, total: int) -> None:
        """End the step with all faults at once, so that a file is corrected in one go."""
        if not self.count:
            return
        for fault in self.listed:
            say(f"  {fault}")
        if self.count > len(self.listed):
            say(f"  and {self.count - len(self.listed)} more")
        more = f"; and {self.count - 3} more" if self.count > 3 else ""
        raise invalid_data(
            f"{self.count} of {total} records cannot be used: {'; '.join(map(str, self.listed[:3]))}{more}",
            hint="correct or remove these records; the log lists the first twenty",
        )


def collect(context: RunContext, staging: Path) -> Pool:
    """Fetch, read and check all datasets.

    Raises:
        UserError: with every fault found, over all datasets.
    """
    pool, faults, total = Pool(), Faults(), 0
    for dataset in context.datasets:
        folder = staging / dataset.name
        folder.mkdir()
        hashes: array[int] = array("Q")
        empty = 0
        with open(staging / f"{dataset.name}.spool", "wb") as spool:
            for row in _rows(dataset, context, folder):
                total += 1
                checked = row if isinstance(row, Fault) else check(row, dataset.format)
                if isinstance(checked, Fault):
                    faults.add(checked)
                elif checked is None:
                    empty += 1
                else:
                    line = json.dumps(checked, ensure_ascii=False, separators=(",", ":")).encode(
                        "utf-8", "surrogatepass"
                    )
                    spool.write(line + b"\n")
                    hashes.append(record_hash(line))
        shutil.rmtree(folder)
        if not hashes and not faults.count:
            raise invalid_data(
                f"dataset {dataset.name}: {dataset.storage_uri or source_of(dataset) or 'inline'} holds no records"
                + (f" ({empty} empty ones)" if empty else ""),
                hint="check the source, or remove the dataset",
            )
        duplicates = len(hashes) - len(set(hashes)) if len(hashes) < 20_000_000 else 0
        remarks = [f"{empty} empty ones passed over"] if empty else []
        remarks += [f"{duplicates} duplicates"] if duplicates else []
        say(f"dataset {dataset.name}: {len(hashes)} records" + (f" ({', '.join(remarks)})" if remarks else ""))
        pool.parts.append((dataset, staging / f"{dataset.name}.spool", hashes, assign(dataset, hashes)))
    faults.raise_if_any(total)
    return pool


def texts_of(record: Record) -> Iterator[str]:
    """Everything in a record that a tokenizer should know."""
    for value in record.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (m["content"] for m in value if isinstance(m, dict) and isinstance(m.get("content"), str))


def note_dataset(committed: Committed) -> None:
    """Put the prepared data into the final record."""
    note_datasets([committed])


def note_datasets(prepared: list[Committed]) -> None:
    """The same of several phases together: sums, and a digest of their digests."""
    digests = [one.manifest["digest"] for one in prepared]
    splits = [(name, split) for one in prepared for name, split in one.manifest["splits"].items()]
    records = {name: sum(s["records"] for n, s in splits if n == name) for name in SPLITS}
    LEDGER.note(
        dataset=DatasetRecord(
            digest=joint_digest(digests),
            records=sum(records.values()),
            tokens=sum(s["tokens"] for _, s in splits) or None,
            splits={name: count for name, count in records.items() if count},
        )
    )


def joint_digest(digests: list[str]) -> str:
    """One for several phases together; that of a single training stays what it is."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _rows(dataset: Dataset, context: RunContext, folder: Path) -> Iterator[Row | Fault]:
    if dataset.inline is not None:
        place = f"dataset {dataset.name}"
        if dataset.inline.text is not None:
            yield from read_inline_text(dataset.inline.text, place)
        for number, record in enumerate(dataset.inline.records or (), start=1):
            yield Row(place, number, record)
        return
    if source_of(dataset) is not None:
        for number, record in enumerate(collected(dataset, context), start=1):
            text = plain_text(record) if dataset.format == "Text" else None
            yield Row(f"dataset {dataset.name}", number, record if text is None else {"text": text})
        return
    for file in fetch(dataset, volumes=context.volumes_dir, secrets=context.secrets_dir, staging=folder):
        file_format = format_of(file, dataset.file_format)
        assert file_format is not None, "fetch returns readable files only"
        yield from read_rows(file, file_format)


def _say_split(split: str, tally: Tally, sequences: int, max_length: int) -> None:
    filled = tally.tokens / (sequences * max_length) if sequences else 0.0
    parts = [f"{tally.records} records", f"{tally.tokens} tokens", f"{sequences} sequences ({filled:.0%} full)"]
    if tally.truncated:
        parts.append(f"{tally.truncated} cut at {max_length} tokens")
    if tally.dropped:
        parts.append(f"{tally.dropped} dropped: nothing to learn in their first {max_length} tokens")
    say(f"{split}: {', '.join(parts)}")


def _prefetch_model(context: RunContext, reporter: Reporter) -> None:
    """Download weights here, where no GPU waits for them, if there is a shared cache that the training step will see."""
    model = context.run.spec.model
    uri = model.storage_uri if model else None
    if model and uri and uri.startswith("hf://") and context.run.spec.storage.cache is not None:
        reporter.report(message=f"downloading {uri}")
        local_folder(uri, context=context, secret_ref=model.secret_ref, weights=True)
