"""From the manifest's datasets to a dataset version: checked, converted, chosen and split records.

    rows -> columns, filters -> generate -> check -> convert -> spool -> duplicates, limit -> split -> one file per split and dataset

Records pass through one at a time. They lie in a spool file until all have been seen, because what duplicates, `limit`
and `split` keep is known only then; in memory are 17 to 33 bytes a record. The digest is over the records and what decides
how they are used: the same records give the same digest, whatever files they came from and on whatever machine.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from trainyard.api.addresses import told
from trainyard.api.run.dataset import Dataset
from trainyard.api.run.methods import METHODS
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.run import built_of, source_of
from trainyard.trainer.data.convert import TO, convert, target
from trainyard.trainer.data.duplicates import Signatures, first_of_equals, words_of
from trainyard.trainer.data.formats import check
from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.records import SPLITS, Faults, Part, notes_of_places, write_places
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.rows import as_text, rows_of
from trainyard.trainer.data.select import group_of, keep_by_limit, passes, rename, time_of
from trainyard.trainer.data.split import Assignment, assign, record_hash, smallest_numbers
from trainyard.trainer.data.tags import tags_file
from trainyard.trainer.errors import invalid_config, invalid_data
from trainyard.trainer.log import say

SCHEMA = "trainyard.dev/dataset/v1"


def build_records(context: RunContext, folder: Path, staging: Path, *, inspect: bool = False) -> dict[str, Any]:
    """Fill `folder` with `<split>/<dataset>.jsonl`. Returns the facts for its manifest.

    Args:
        context: the run.
        folder: where the records go.
        staging: an empty folder for what is needed meanwhile; it is emptied.
        inspect: also count records that nearly stand on both sides of a split.

    Raises:
        UserError: with every fault found, over all datasets.
    """
    faults, parts, total = Faults(), [], 0
    near = any(d.deduplicate == "Near" for d in context.datasets)
    for dataset in context.datasets:
        signed = inspect or dataset.deduplicate == "Near" or (near and dataset.role != "Train")
        part, seen = _read(dataset, context, staging, faults, signed=signed)
        parts.append(part)
        total += seen
    faults.raise_if_any(total)
    alike = _alike(parts) if inspect or near else {}
    _drop_duplicates(parts, alike)
    assignments = []
    for part in parts:
        _limit_tasks(part)
        keep_by_limit(part.dataset, part.keep, part.times)
        assignments.append(assign(part.dataset, _kept(part), _kept(part, part.groups) if part.groups else None))
    leaks = _leaks(parts, assignments, alike)
    splits, digest = _write(parts, assignments, folder)
    _note_places(parts, assignments, digest, notes_of_places(context))
    for part in parts:
        part.spool.unlink()
        say(f"dataset {part.dataset.name}: {_told(part)}")
    return {
        "schema": SCHEMA,
        "digest": digest,
        "splits": splits,
        "datasets": [
            {
                "name": part.dataset.name,
                "role": part.dataset.role,
                "format": part.format,
                "weight": part.dataset.weight,
                "source": source_name(part.dataset),
                "records": part.counts["used"],
                **part.built,
            }
            for part in parts
        ],
        "statistics": {
            **{name: sum(part.counts[name] for part in parts) for name in _COUNTED},
            "repeated": _repeated(parts),
            **leaks,
            "characters": sum(part.counts["characters"] for part in parts),
        },
    }


_COUNTED = ("read", "empty", "filtered", "unconvertible", "duplicates", "generated")


def source_name(dataset: Dataset) -> str:
    """What a dataset is read from, without anything secret."""
    return told(dataset.storage_uri or source_of(dataset) or "inline")


def _read(dataset: Dataset, context: RunContext, staging: Path, faults: Faults, *, signed: bool) -> tuple[Part, int]:
    """Fetch, choose, generate, check, convert and spool one dataset. Returns it with the number of rows."""
    part = Part(dataset, trained_format(dataset, context), staging / f"{dataset.name}.spool")
    part.signatures = Signatures(staging / f"{dataset.name}.signatures") if signed else None
    downloads = staging / dataset.name
    downloads.mkdir()
    training = context.run.spec.training
    needs_answer = any(reward.needs_answer for reward in (training.rewards if training else None) or ())
    total = 0
    with open(part.spool, "wb") as spool:
        for row in _examples(dataset, context, downloads, part, faults):
            total += 1
            if isinstance(row, Fault):
                faults.add(row)
                continue
            checked = check(as_text(row, dataset), dataset.record_format)
            if isinstance(checked, Fault):
                faults.add(checked)
                continue
            if checked is None:
                part.counts["empty"] += 1
                continue
            if dataset.selection_strategy == "Latest":
                moment = time_of(row, dataset.time_field)
                if isinstance(moment, Fault):
                    faults.add(moment)
                    continue
                part.times.append(moment)
            record = convert(checked, dataset.record_format, part.format)
            if needs_answer and record is not None and "answer" not in record:
                faults.add(
                    Fault(row.place, "field answer: is missing, and one of spec.training.rewards compares with it")
                )
                continue
            if record is None:
                part.counts["unconvertible"] += 1
                if part.times:
                    part.times.pop()
                continue
            line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
            spool.write(line + b"\n")
            if dataset.generate is not None:
                part.tasks.setdefault(row.value["task"], array("Q")).append(len(part.hashes))
            part.hashes.append(record_hash(line))
            part.note_place(row)
            part.note_tags(row)
            if dataset.split is not None and dataset.split.group_by:
                part.groups.append(group_of(row.value, dataset.split.group_by, record_hash))
            if part.signatures is not None:
                part.signatures.add(words_of(record))
    shutil.rmtree(downloads)
    part.counts["read"] = total
    _check_count(part)
    if (built := built_of(dataset, context)) is not None:
        part.built = {"built": built}
    part.keep = bytearray(b"\x01" * len(part.hashes))
    if not part.hashes and not faults.count:
        raise invalid_data(
            f"dataset {dataset.name}: {source_name(dataset)} holds no records{_why_none(part)}", hint=_way_out(part)
        )
    return part, total


def _check_count(part: Part) -> None:
    """Raises UserError if the source has another number of records than the manifest expects."""
    dataset, found = part.dataset, part.counts["rows"]
    if dataset.expected_count is not None and found != dataset.expected_count:
        raise invalid_data(
            f"spec.datasets[{dataset.name}].expectedCount {dataset.expected_count}: {source_name(dataset)} has {found} records",
            hint=f"build the dataset again, or set expectedCount: {found}" if found else "check the source",
        )


def _examples(dataset: Dataset, context: RunContext, folder: Path, part: Part, faults: Faults) -> Iterator[Row | Fault]:
    """Rows after columns and filters, or the examples that are made from them."""

    def chosen() -> Iterator[Row | Fault]:
        for row in rows_of(dataset, context, folder):
            part.counts["rows"] += 1
            if isinstance(row, Fault):
                yield row
            elif passes(row.value, dataset.filters):
                yield rename(row, dataset.columns)
            else:
                part.counts["filtered"] += 1

    if dataset.generate is None:
        yield from chosen()
        return

    def sound() -> Iterator[Row]:
        for row in chosen():
            if isinstance(row, Fault):
                faults.add(row)
            else:
                yield row

    for example in examples_of(sound(), dataset.generate.tasks):
        part.counts["generated"] += isinstance(example, Row)
        yield example


def trained_format(dataset: Dataset, context: RunContext) -> str:
    """The format that a dataset's records are stored in: what the method learns from.

    Raises:
        UserError: there is no way from the one to the other.
    """
    spec = context.run.spec
    method = spec.training.method if spec.training and not spec.command and spec.mode != "Dataset" else None
    found = target(dataset.record_format, dataset.convert_to, method)
    if found is not None:
        return found
    here, to = f"spec.datasets[{dataset.name}]", dataset.convert_to
    if to is not None and to != dataset.record_format and to not in TO[dataset.record_format]:
        possible = ", ".join(TO[dataset.record_format]) or "nothing else"
        raise invalid_config(
            f"{here}.convertTo {to}: records of format {dataset.record_format} do not become that",
            hint=f"they become {possible}",
        )
    learned = METHODS[str(method)].learns.formats
    ways = [f for f in learned if f in TO[dataset.record_format]]
    raise invalid_config(
        f"{here}: method {method} does not learn from format {to or dataset.record_format}",
        hint=f"set convertTo: {ways[-1]}" if ways else f"it learns from {', '.join(learned)}",
    )


def _alike(parts: list[Part]) -> dict[int, np.ndarray[Any, Any]]:
    """For each signed dataset, by its place: per record the group of nearly equal ones over all of them."""
    signed = [n for n in _held_out_first(parts) if parts[n].signatures is not None]
    if not signed:
        return {}
    groups = Signatures.clusters_of([s for n in signed if (s := parts[n].signatures) is not None])
    found, start = {}, 0
    for n in signed:
        found[n] = groups[start : start + len(parts[n].hashes)]
        start += len(parts[n].hashes)
    return found


def _held_out_first(parts: list[Part]) -> list[int]:
    """Of two equal records the one that is held out stays."""
    return sorted(range(len(parts)), key=lambda n: not parts[n].held_out)


def _drop_duplicates(parts: list[Part], alike: dict[int, Any]) -> None:
    """Clear `keep` of what deduplicate leaves out, and count equal records where it is off."""
    order = [n for n in _held_out_first(parts) if parts[n].held_out or parts[n].dataset.deduplicate != "None"]
    equal = first_of_equals([parts[n].hashes for n in order])
    start = 0
    near_seen: set[int] = set()
    for n in order:
        part = parts[n]
        mode = part.dataset.deduplicate
        for place in range(len(part.hashes)):
            repeated = equal[start + place] != start + place
            if n in alike and (mode == "Near" or part.held_out):
                group = int(alike[n][place])
                repeated = repeated or (mode == "Near" and group in near_seen)
                near_seen.add(group)
            if repeated and mode != "None":
                part.keep[place] = 0
                part.counts["duplicates"] += 1
        start += len(part.hashes)
    for part in parts:
        if part.dataset.deduplicate == "None":
            part.counts["repeated"] = _repeated([part])


def _repeated(parts: list[Part]) -> int:
    """Equal records beyond the first, over all datasets, among those that are kept."""
    kept = np.concatenate(
        [np.frombuffer(values, np.uint64) for p in parts if (values := _kept(p))] or [np.empty(0, np.uint64)]
    )
    return len(kept) - len(np.unique(kept))


def _limit_tasks(part: Part) -> None:
    """Of each task the `maxPerTask` examples with the smallest numbers, so that all sources have their share."""
    if part.dataset.generate is None:
        return
    for places in part.tasks.values():
        kept = [n for n in places if part.keep[n]]
        limit = part.dataset.generate.max_per_task
        if len(kept) > limit:
            chosen = set(smallest_numbers([part.hashes[n] for n in kept], limit))
            for index, n in enumerate(kept):
                part.keep[n] = index in chosen


def _kept(part: Part, values: array[int] | None = None) -> array[int]:
    values = part.hashes if values is None else values
    return array("Q", (value for value, flag in zip(values, part.keep, strict=True) if flag))


def _placed(part: Part, assignment: Assignment) -> Iterator[tuple[int, str | None]]:
    """Each record's number and split."""
    taken = 0
    for n, value in enumerate(part.hashes):
        if not part.keep[n]:
            yield n, None
            continue
        place = assignment.split_of(value, part.groups[n] if part.groups else None)
        if place is None or (part.dataset.limit is not None and taken >= part.dataset.limit):
            yield n, None
            continue
        taken += 1  # equal records have equal hashes, so the threshold alone may let a few too many in
        yield n, place


def _leaks(parts: list[Part], assignments: list[Assignment], alike: dict[int, Any]) -> dict[str, int]:
    """Training records that also are held out: word for word, and nearly."""
    held: set[int] = set()
    near_held: set[int] = set()
    trained: list[tuple[int, int | None]] = []
    for index, (part, assignment) in enumerate(zip(parts, assignments, strict=True)):
        groups = alike.get(index)
        for n, place in _placed(part, assignment):
            if place is None:
                continue
            group = None if groups is None else int(groups[n])
            if place == "train":
                trained.append((part.hashes[n], group))
            else:
                held.add(part.hashes[n])
                if group is not None:
                    near_held.add(group)
    leaked = sum(value in held for value, _ in trained) if held else 0
    found = {"leaked": leaked}
    if alike:
        found["nearlyLeaked"] = sum(group in near_held and value not in held for value, group in trained)
    return found


def _write(parts: list[Part], assignments: list[Assignment], folder: Path) -> tuple[dict[str, Any], str]:
    """Copy the chosen records from the spools to their files. Returns counts by split, and the digest."""
    counts = {split: {"records": 0, "bytes": 0} for split in SPLITS}
    sums: dict[tuple[str, str], Any] = {}
    for split in SPLITS:
        (folder / split).mkdir()
    for part, assignment in zip(parts, assignments, strict=True):
        name = part.dataset.name
        streams: dict[str, Any] = {}
        try:
            with open(part.spool, "rb") as spool:
                for line, (_, place) in zip(spool, _placed(part, assignment), strict=True):
                    if place is None:
                        continue
                    if place not in streams:
                        streams[place] = open(folder / place / f"{name}.jsonl", "wb")  # noqa: SIM115 - closed below
                        sums[place, name] = hashlib.sha256()
                    streams[place].write(line)
                    sums[place, name].update(line)
                    counts[place]["records"] += 1
                    counts[place]["bytes"] += len(line)
                    part.counts["used"] += 1
                    part.counts["characters"] += len(line)
        finally:
            for stream in streams.values():
                stream.close()
        _write_tags(part, assignment, folder)
    basis = [
        [split, part.dataset.name, part.format, part.dataset.weight, found.hexdigest()]
        for split in SPLITS
        for part in parts
        if (found := sums.get((split, part.dataset.name))) is not None
    ]
    return counts, hashlib.sha256(json.dumps(basis).encode()).hexdigest()


def _write_tags(part: Part, assignment: Assignment, folder: Path) -> None:
    """Of what is held out, where any record says something about itself. No part of the digest: names teach nothing."""
    texts = list(part.tags)
    for split in SPLITS[1:]:
        lines = [texts[part.tag_of[n]] for n, place in _placed(part, assignment) if place == split]
        if any(line != "{}" for line in lines):
            file = folder / tags_file(split, part.dataset.name)
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(f"{line}\n" for line in lines))


def _note_places(parts: list[Part], assignments: list[Assignment], digest: str, folder: Path) -> None:
    """For messages about records that turn out later to be no use to the model."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part, assignment in zip(parts, assignments, strict=True):
        places = {split: array("Q") for split in SPLITS}
        for n, split in _placed(part, assignment):
            if split is not None:
                places[split].append(part.places[n])
        for split in SPLITS:
            write_places(folder / f"{split}-{part.dataset.name}", digest, part.sources, places[split])


def _told(part: Part) -> str:
    counts = part.counts
    remarks = [
        f"{counts[name]} {what}"
        for name, what in (
            ("filtered", "filtered out"),
            ("empty", "empty ones passed over"),
            ("unconvertible", f"without what {part.format} needs"),
            ("duplicates", "duplicates dropped"),
            ("repeated", "duplicates"),
        )
        if counts[name]
    ]
    if part.tasks:
        used = {task: sum(part.keep[n] for n in places) for task, places in sorted(part.tasks.items())}
        remarks.append(", ".join(f"{task} {count}" for task, count in used.items()))
    return f"{counts['used']} records" + (f" ({', '.join(remarks)})" if remarks else "")


def _why_none(part: Part) -> str:
    counts = part.counts
    if part.dataset.generate is not None:
        return " that examples can be made from"
    if counts["filtered"]:
        return f": filters let none of {counts['filtered']} pass"
    return f" ({counts['empty']} empty ones)" if counts["empty"] else ""


def _way_out(part: Part) -> str:
    if part.dataset.generate is not None:
        return "name other tasks in generate, or collect more"
    return "widen the filters" if part.counts["filtered"] else "check the source, or remove the dataset"
