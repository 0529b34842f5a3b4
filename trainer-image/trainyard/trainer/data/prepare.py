"""The prepare step: from the manifest's datasets to packed token sequences on the run's volume.

It needs no accelerator and no torch, so a GPU is not held while data is fetched, and a fault in line seven of a file comes
up within seconds. The order:

    build the dataset version (see build.py) -> commit -> upload -> tokenizer -> tokenise -> pack -> commit

Both results are committed folders. What is there already, made from the same specification, is not made again, which is
what happens after a restart. Mode Dataset ends after the upload.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainyard.api.addresses import told
from trainyard.api.run.methods import METHODS
from trainyard.api.run.training import Training
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.run import forget
from trainyard.trainer.data.messages import Record
from trainyard.trainer.data.records import SPLITS, Built
from trainyard.trainer.data.store import write_split
from trainyard.trainer.data.tags import noted, prepared_tags
from trainyard.trainer.data.teacher import ask, check_same_tokenizer
from trainyard.trainer.data.tokenize import Encoder, Tally
from trainyard.trainer.data.tokenizer import copy_tokenizer, train_tokenizer
from trainyard.trainer.data.usable import check_usable, facts_of, remarks
from trainyard.trainer.data.version import build_key, ensure_dataset, upload
from trainyard.trainer.data.workspace import check_out
from trainyard.trainer.errors import invalid_config, storage
from trainyard.trainer.log import say
from trainyard.trainer.phases import SHARED_TOKENIZER
from trainyard.trainer.reporter import PreparedDataset, Reporter
from trainyard.trainer.volume.bases import base_folder, is_made
from trainyard.trainer.volume.commit import (
    Committed,
    commit_folder,
    find_damage,
    read_committed,
    read_made_from,
    remove_leftovers,
)
from trainyard.trainer.volume.origin import local_folder
from trainyard.trainer.volume.weights import check_weights, embeddings_of

LAYOUT = 3
"""Raised when the files of prepared data change their meaning, so that older ones are made anew."""


def is_packed(training: Training) -> bool:
    """Whether several examples share a sequence."""
    return training.packing and METHODS[training.method].packs


def prepare(context: RunContext, reporter: Reporter) -> None:
    """Make the dataset version and `context.data_dir`, or find that they are there."""
    reporter.report(phase="prepare", percentage=0.0)
    remove_leftovers(context.work_dir)
    spec = context.run.spec
    check_out(context, reporter)
    if spec.command and not spec.datasets:
        reporter.report(percentage=100.0, milestone=True)
        return
    if spec.mode == "Dataset":
        built = ensure_dataset(context)
        forget(context)
        upload(context, built)
        note_dataset(Committed(built.folder, built.manifest, 0), reporter)
        reporter.report(percentage=100.0, milestone=True)
        return
    key = specification_key(context)
    present = read_made_from(context.data_dir, key)
    if present is not None:
        say("the prepared data is complete and made from this specification: nothing to do")
    else:
        started = time.monotonic()
        built = ensure_dataset(context)
        upload(context, built)
        reporter.report(percentage=30.0)
        make = write_records if spec.command else tokenise
        present = commit_folder(context.data_dir, lambda folder: make(context, reporter, folder, built), key=key)
        forget(context)
        say(f"prepared {present.bytes / 1e6:.1f} MB in {time.monotonic() - started:.1f} s")
    note_dataset(present, reporter)
    if not spec.command:
        ask(context, present, reporter)
    _prefetch_model(context, reporter)
    reporter.report(percentage=100.0, milestone=True)


def specification_key(context: RunContext) -> str:
    """Digest of everything in the manifest that the prepared data depends on."""
    basis: dict[str, Any] = {"layout": LAYOUT, "records": build_key(context)}
    if not context.run.spec.command:
        model = context.model
        own = model.scratch.tokenizer.model_dump() if model.scratch else model.storage_uri
        basis["tokenizer"] = context.shared_tokenizer or own
        basis["maxLength"] = context.training.max_length
        basis["packing"] = context.training.packing
        if context.training.teacher is not None:
            basis["teacher"] = context.training.teacher.storage_uri  # whose tokenizer is compared
    return hashlib.sha256(json.dumps(basis, sort_keys=True).encode()).hexdigest()


def write_records(context: RunContext, reporter: Reporter, folder: Path, built: Built) -> dict[str, Any]:
    """For a script of the user's own, which tokenises as it likes: the records as `<split>.jsonl`."""
    splits = {}
    for split in SPLITS:
        count = 0
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8", errors="surrogatepass") as stream:
            for record, repeat in built.records(split):
                count += 1
                stream.write((json.dumps(record, ensure_ascii=False) + "\n") * repeat)
        splits[split] = {"records": count, "tokens": 0}
        if count:
            say(f"{split}: {count} records in {split}.jsonl")
        else:
            (folder / f"{split}.jsonl").unlink()
    return {"digest": built.digest, "splits": splits, "datasets": built.manifest["datasets"]}


def tokenise(context: RunContext, reporter: Reporter, folder: Path, built: Built) -> dict[str, Any]:
    """Fill `folder` with tokens. Returns the facts for its manifest."""
    if context.phase is not None:
        shared = context.run_dir / SHARED_TOKENIZER
        tokenizer = copy_tokenizer(shared, folder / "tokenizer", uri=str(shared))
    else:
        tokenizer = make_tokenizer(context, folder / "tokenizer", lambda: built)
    with tempfile.TemporaryDirectory() as place:
        check_same_tokenizer(context, tokenizer, Path(place))
    reporter.report(percentage=50.0)

    encoder = Encoder(tokenizer, max_length=context.training.max_length)
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    splits: dict[str, dict[str, Any]] = {}
    tallies = {split: Tally() for split in SPLITS}
    for split, tally in tallies.items():
        examples = encoder.encode(built.records(split), tally)
        if split != "train":
            examples = noted(examples, list(built.tags(split)), prepared_tags(folder, split))
        sequences = write_split(
            folder / split,
            examples,
            vocab_size=vocab_size,
            max_length=context.training.max_length,
            packing=is_packed(context.training),
            pairs=METHODS[context.training.method].learns.examples == "pairs",
        )
        splits[split] = {**facts_of(tally), "sequences": sequences}
        if tally.records:
            _say_split(split, tally, sequences, context.training)
    check_usable(context, built, tallies)
    return {
        "digest": built.digest,
        "splits": splits,
        "datasets": built.manifest["datasets"],
        "vocabSize": vocab_size,
        "maxLength": context.training.max_length,
        "packing": context.training.packing,
    }


def make_tokenizer(context: RunContext, folder: Path, built: Callable[[], Built]) -> Any:
    """Train the tokenizer on the training records, or copy the one that the spec names."""
    model = context.model
    if model.scratch is not None and model.scratch.tokenizer.train_vocab_size is not None:
        started = time.monotonic()
        texts = (text for record, _ in built().records("train") for text in texts_of(record))
        tokenizer = train_tokenizer(texts, model.scratch.tokenizer.train_vocab_size, folder)
        say(f"tokenizer trained: {len(tokenizer)} entries in {time.monotonic() - started:.1f} s")
        return tokenizer
    uri = model.scratch.tokenizer.storage_uri if model.scratch else model.storage_uri
    assert uri is not None
    if model.scratch is None:
        source = base_folder(context, weights=False)
    else:
        source = local_folder(uri, context=context, secret_ref=model.secret_ref, weights=False)
    tokenizer = copy_tokenizer(source, folder, uri=uri)
    entries = max(tokenizer.get_vocab().values()) + 1
    if model.scratch is None and (rows := embeddings_of(source)) is not None and entries > rows:
        raise invalid_config(
            f"the tokenizer has {entries} entries, the model only {rows} embeddings",
            hint="tokenizer and weights are not of the same model",
        )
    return tokenizer


def texts_of(record: Record) -> Iterator[str]:
    """Everything in a record that a tokenizer should know."""
    for value in record.values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (m["content"] for m in value if isinstance(m, dict) and isinstance(m.get("content"), str))


def open_prepared(context: RunContext, key: str, reporter: Reporter) -> Committed:
    """What the prepare step has made; `key` is that of the specification as it is now.

    Raises:
        UserError: there is none, it is damaged, or it was made from another specification.
    """
    data = read_committed(context.data_dir)
    if data is None:
        raise storage(f"there is no prepared data in {context.data_dir}", hint="run the prepare step first")
    if (damage := find_damage(data, hashes=False)) is not None:
        raise storage(
            f"the prepared data in {context.data_dir} is damaged: {damage}", hint="delete it and prepare again"
        )
    if data.manifest["key"] != key:
        raise invalid_config(
            f"the prepared data in {context.data_dir} was made from other datasets, or with other settings of the data",
            hint="run the prepare step again, or use another metadata.name",
        )
    note_dataset(data, reporter)
    return data


def note_dataset(committed: Committed, reporter: Reporter) -> None:
    """Put the prepared data into the final record."""
    note_datasets([committed], reporter)


def note_datasets(prepared: list[Committed], reporter: Reporter) -> None:
    """The same of several phases together: sums, and a digest of their digests."""
    digests = [one.manifest["digest"] for one in prepared]
    splits = [(name, split) for one in prepared for name, split in one.manifest["splits"].items()]
    records = {name: sum(s["records"] for n, s in splits if n == name) for name in SPLITS}
    # Phases may share datasets; each is named once.
    datasets = {d["name"]: d for one in prepared for d in one.manifest["datasets"]}
    reporter.report(
        dataset=PreparedDataset(
            digest=joint_digest(digests),
            records=sum(records.values()),
            tokens=sum(s.get("tokens", 0) for _, s in splits) or None,
            splits={name: count for name, count in records.items() if count},
            sources={name: dataset["records"] for name, dataset in datasets.items()},
            built={name: dataset["built"] for name, dataset in datasets.items() if "built" in dataset},
        )
    )


def joint_digest(digests: list[str]) -> str:
    """One for several phases together; that of a single training stays what it is."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _say_split(split: str, tally: Tally, sequences: int, training: Training) -> None:
    max_length = training.max_length
    kind = METHODS[training.method].learns.examples
    filled = f" ({tally.tokens / (sequences * max_length):.0%} full)" if sequences and kind == "sequences" else ""
    parts = [f"{tally.records} records", f"{tally.tokens} tokens", f"{sequences} {kind}{filled}"]
    say(f"{split}: {', '.join(parts)}")
    for remark in remarks(tally, max_length):
        say(f"{split}: {remark}")


def _prefetch_model(context: RunContext, reporter: Reporter) -> None:
    """Download weights here, where no GPU waits for them, if there is a shared cache that the training step will see."""
    spec = context.run.spec
    wanted = [(spec.model.storage_uri, spec.model.secret_ref)] if spec.model else []
    wanted += [(reward.storage_uri, reward.secret_ref) for _, reward in spec.reward_models()]
    wanted += [(teacher.storage_uri, teacher.secret_ref) for _, teacher in spec.teachers()]
    for uri, secret_ref in wanted:
        if uri and uri.startswith("hf://") and not is_made(uri) and spec.storage.cache is not None:
            reporter.report(message=told(f"downloading {uri}"))
            check_weights(local_folder(uri, context=context, secret_ref=secret_ref, weights=True), uri)
