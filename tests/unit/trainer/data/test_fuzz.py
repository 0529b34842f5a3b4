"""Odd data without end: whatever stands in a file, each record is used, told, or counted as empty, and nothing is raised.

A few hundred files of each kind by default; `TRAINYARD_FUZZ=100000` makes it so many in all.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data.collect.manifest import read_manifest
from trainyard.trainer.data.collect.runbook import parse
from trainyard.trainer.data.convert import TO, convert
from trainyard.trainer.data.formats import FIELDS, FURTHER, check
from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.message_forms import SPEAKERS
from trainyard.trainer.data.messages import ROLES
from trainyard.trainer.data.readers import read_rows
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.select import columns_of, group_of, passes, rename, time_of
from trainyard.trainer.data.sources import SourceFile
from trainyard.trainer.data.split import record_hash
from trainyard.trainer.data.tokenize import Encoder, Tally
from trainyard.trainer.data.tokenizer import train_tokenizer
from trainyard.trainer.errors import UserError

KINDS = 8
EXAMPLES = int(os.environ.get("TRAINYARD_FUZZ", "1600")) // KINDS
fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    derandomize=EXAMPLES < 1000,
)

texts = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\ud83d", "\udc00x", "\x00", "<think>", "</s>", "<|im_end|>", "[{", "{}", "null", "1e400", "a\nb"]
    ),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**25), 10**25), st.floats(), texts)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
calls = st.fixed_dictionaries(
    {"function": st.fixed_dictionaries({"name": texts, "arguments": values | st.just('{"a": null}')})},
    optional={"type": texts, "id": values},
)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES) | values, "content": texts | values},
    optional={
        "tool_calls": st.lists(calls, max_size=2) | values,
        "weight": st.sampled_from([0, 1, 0.0, 2]) | values,
        "train": st.booleans() | values,
        "name": values,
    },
)
spoken = st.fixed_dictionaries({"from": st.sampled_from(sorted(SPEAKERS)) | values, "value": texts | values})
parts = st.lists(st.fixed_dictionaries({"type": st.just("text") | values, "text": texts | values}), max_size=3)
in_parts = st.fixed_dictionaries({"role": st.sampled_from(ROLES), "content": parts}, optional={"function_call": values})
talk = (
    st.lists(message | spoken | in_parts, max_size=4)
    | st.lists(message, max_size=2).map(lambda m: json.dumps(m))
    | values
)
fields: dict[str, Any] = {
    "text": texts,
    "prompt": texts | talk,
    "completion": texts | talk,
    "messages": talk,
    "conversations": talk,
    "chosen": texts | talk,
    "rejected": texts | talk,
    "answer": values,
    "tools": st.lists(st.dictionaries(texts, values, max_size=3), max_size=2) | values,
    "problem": texts,
    "initial_answer": texts,
    "solution": texts | st.just('{"name": "run_command", "arguments": {}}'),
    "reasoning_steps": st.lists(texts, max_size=3) | values,
    "metadata": st.fixed_dictionaries(
        {},
        optional={
            "source": texts,
            "query": texts,
            "type": texts | st.just("function_call"),
            "timestamp": texts | st.just("2026-01-01T00:00:00Z") | st.just("0001-01-01T00:00:00+09:00"),
        },
    )
    | values,
    "response": texts,
    "label": st.booleans() | values,
    "prompts": texts | st.just("<start_of_turn>user\nq<end_of_turn>\n<start_of_turn>model\na<end_of_turn>"),
    "final_answer": texts | values,
    "kind": st.sampled_from(["series", "log", "trace", "code", "runbook_entry"]) | values,
}
formats = st.sampled_from(sorted(FIELDS))


@st.composite
def records(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """A format, and records that mostly have its fields."""
    record_format = draw(formats)
    named = (*FIELDS[record_format], *FURTHER.get(record_format, ()))
    one = st.fixed_dictionaries({}, optional={name: fields[name] for name in (*named, "kind")}) | st.dictionaries(
        st.sampled_from(sorted(fields)) | texts, values, max_size=3
    )
    whole = st.fixed_dictionaries({name: fields[name] for name in FIELDS[record_format]})
    return record_format, draw(st.lists(one | whole | values, max_size=4))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content as it is, cut off, or with some bytes changed; perhaps packed."""
    if draw(st.booleans()):
        content = gzip.compress(content, mtime=0)
    how = draw(st.sampled_from(["as it is", "as it is", "cut", "changed"]))
    if how == "cut" and content:
        content = content[: draw(st.integers(0, len(content) - 1))]
    if how == "changed" and content:
        place = draw(st.integers(0, len(content) - 1))
        content = content[:place] + draw(st.binary(min_size=1, max_size=4)) + content[place + 1 :]
    return content


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    folder = tmp_path_factory.mktemp("tokenizer")
    return Encoder(train_tokenizer((f"number {n}" for n in range(50)), 320, folder), max_length=48)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


def dataset(record_format: str) -> Dataset:
    return Dataset.model_validate(
        {
            "name": "d",
            "storageUri": "file:///x",
            "format": record_format,
            "filters": [{"field": "score", "operator": "DoesNotExist"}, {"field": "metadata.n", "operator": "NotIn", "values": ["5"]}],
        }
    )  # fmt: skip


def used(rows: Iterator[Row | Fault], record_format: str, encoder: Encoder) -> None:
    """What a dataset's records go through. Each row has to come out as something."""
    about = dataset(record_format)
    count = faults = empty = filtered = unconvertible = 0
    kept: list[tuple[Any, int]] = []
    for row in rows:
        count += 1
        if isinstance(row, Row) and not passes(row.value, about.filters):
            filtered += 1
            continue
        if isinstance(row, Row):
            group_of(row.value, ["metadata.source", "kind"], record_hash)
            time_of(row, None)
            renamed = rename(row, {"further": "kind"})
            assert isinstance(renamed, Row | Fault)
        found = row if isinstance(row, Fault) else check(row, record_format)
        if isinstance(found, Fault):
            assert found.place
            assert found.message
            str(found).encode("utf-8", "surrogatepass")
            faults += 1
        elif found is None:
            empty += 1
        else:
            for to in (record_format, *TO[record_format]):
                made = convert(found, record_format, to)
                unconvertible += made is None
                if made is not None:
                    line = json.dumps(made, ensure_ascii=False).encode()
                    assert json.loads(line) == json.loads(json.dumps(made))
                    kept.append((json.loads(line), 1))
    taught = [(record, n) for record, n in kept if {"text", "messages", "completion", "prompt"} & set(record)]
    taught = [(record, n) for record, n in taught if "response" not in record]
    tally = Tally()
    examples = sum(1 for _ in encoder.encode(taught, tally))
    assert tally.records == len(taught)
    assert tally.refusals + tally.dropped.total() <= tally.records
    assert examples >= tally.records - tally.refusals - tally.dropped.total()
    assert count >= faults + empty + filtered


@fuzzed
@given(st.data())
def test_lines_of_json(place: Path, encoder: Encoder, data: st.DataObject) -> None:
    record_format, found = data.draw(records())
    lines = [json.dumps(value, ensure_ascii=data.draw(st.booleans())) for value in found]
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    (place / "a.jsonl").write_bytes(data.draw(damaged(content)))
    used(read_rows(SourceFile(place / "a.jsonl", "a.jsonl"), "JSONL"), record_format, encoder)


@fuzzed
@given(st.data())
def test_every_line_of_a_whole_file_is_a_row_or_a_fault(place: Path, data: st.DataObject) -> None:
    lines = data.draw(
        st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"").replace(b"\x1f\x8b", b"")), max_size=8)
    )
    (place / "b.jsonl").write_bytes(b"\n".join(lines))
    rows = list(read_rows(SourceFile(place / "b.jsonl", "b.jsonl"), "JSONL"))
    places = {int((row.place).rpartition(":")[2]) for row in rows}
    wanted = set()
    for number, line in enumerate(lines, start=1):
        try:
            blank = not line.removeprefix(b"\xef\xbb\xbf" if number == 1 else b"").decode().strip()
        except UnicodeDecodeError:
            blank = False
        if not blank:
            wanted.add(number)
    assert places == wanted


@fuzzed
@given(st.data())
def test_json(place: Path, encoder: Encoder, data: st.DataObject) -> None:
    record_format, found = data.draw(records())
    content = json.dumps(data.draw(st.just(found) | values)).encode("utf-8", "surrogatepass")
    (place / "a.json").write_bytes(data.draw(damaged(content)))
    used(read_rows(SourceFile(place / "a.json", "a.json"), "JSON"), record_format, encoder)


@fuzzed
@given(st.data())
def test_tables(place: Path, encoder: Encoder, data: st.DataObject) -> None:
    record_format = data.draw(formats)
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=data.draw(st.sampled_from(",;\t")))
    header = data.draw(st.permutations([*FIELDS[record_format], data.draw(texts)]))
    rows = data.draw(st.lists(st.lists(texts | talk.map(str), min_size=1, max_size=4), max_size=4))
    for row in (header, *rows):
        try:
            writer.writerow(row)
        except csv.Error:
            return
    (place / "a.csv").write_bytes(data.draw(damaged(stream.getvalue().encode("utf-8", "surrogatepass"))))
    name = data.draw(st.sampled_from(["a.csv", "a.tsv"]))
    used(read_rows(SourceFile(place / "a.csv", name), "CSV"), record_format, encoder)


@fuzzed
@given(st.data())
def test_parquet(place: Path, encoder: Encoder, data: st.DataObject) -> None:
    import pyarrow
    import pyarrow.parquet

    record_format, found = data.draw(records())
    kinds = [
        pyarrow.string(), pyarrow.binary(), pyarrow.int64(), pyarrow.timestamp("ms"), pyarrow.timestamp("ns", "UTC"),
        pyarrow.decimal128(20, 3), pyarrow.date64(), pyarrow.list_(pyarrow.string()), pyarrow.duration("us"),
        pyarrow.struct([("role", pyarrow.string()), ("content", pyarrow.string())]),
    ]  # fmt: skip
    try:
        table = pyarrow.Table.from_pylist([value for value in found if isinstance(value, dict)])
        for name in data.draw(st.lists(st.sampled_from([*sorted(fields), "more"]), max_size=2)):
            column = pyarrow.array(
                data.draw(st.lists(st.none() | st.integers(-(2**60), 2**60), min_size=len(table), max_size=len(table)))
            )
            table = table.append_column(name, column.cast(data.draw(st.sampled_from(kinds)), safe=False))
        sink = pyarrow.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink)
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError, ValueError):
        return
    content = bytes(sink.getvalue())
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(content) - 1))
        content = content[:at] + data.draw(st.binary(min_size=1, max_size=3)) + content[at + 1 :]
    (place / "a.parquet").write_bytes(content)
    columns = data.draw(st.sampled_from([None, columns_of(dataset(record_format))]))
    used(read_rows(SourceFile(place / "a.parquet", "a.parquet"), "Parquet", columns), record_format, encoder)


@fuzzed
@given(st.data())
def test_text_and_runbooks(place: Path, encoder: Encoder, data: st.DataObject) -> None:
    lines = (
        st.sampled_from(
            ["# Title", "## Symptom", "**Fix:** do", "```sh", "```", "$ ls \\", "", "Symptom: it hangs", "- a"]
        )
        | texts
    )
    text = "\n".join(data.draw(st.lists(lines, max_size=12)))
    (place / "a.md").write_bytes(data.draw(damaged(text.encode("utf-8", "surrogatepass"))))
    used(read_rows(SourceFile(place / "a.md", "a.md"), "Text"), "Text", encoder)
    entries = list(parse(text, "a.md"))
    for example in examples_of([Row("a.md", n, entry) for n, entry in enumerate(entries)], []):
        assert isinstance(example, Row | Fault)


@fuzzed
@given(st.data())
def test_records_that_say_to_be_collected(data: st.DataObject) -> None:
    points = st.lists(st.lists(scalars, max_size=3), max_size=6) | st.builds(
        lambda start, step: [[start + n * step, n % 5] for n in range(60)], st.floats(-1e20, 1e20), st.floats(0, 1e15)
    )
    span = st.fixed_dictionaries(
        {"span_id": texts, "start_ns": scalars, "duration_ns": scalars},
        optional={"parent_id": texts, "status": values, "name": texts},
    )
    kinds = {
        "series": {"values": points | values, "metric": values, "query": values, "step": values},
        "log": {"line": texts, "timestamp_ns": scalars, "labels": values},
        "trace": {"spans": st.lists(span, max_size=5) | values, "trace_id": values},
        "code": {"text": texts, "path": st.sampled_from(["a.py", "a.cs", "a.yaml", "a.json"]) | texts, "language": values},
        "runbook_entry": {"title": texts, "symptom": texts, "diagnosis": values, "commands": st.lists(texts, max_size=2) | values},
    }  # fmt: skip
    kind = data.draw(st.sampled_from(sorted(kinds)))
    record = {"kind": kind, **data.draw(st.fixed_dictionaries(kinds[kind]))}
    repeated = [Row("a.jsonl", n, record) for n in range(data.draw(st.sampled_from([1, 2, 40])))]
    for example in examples_of(repeated, []):
        if isinstance(example, Row):
            checked = check(example, "TRM")
            assert isinstance(checked, dict | Fault)


@fuzzed
@given(st.one_of(st.binary(max_size=60), values.map(lambda v: json.dumps(v).encode("utf-8", "surrogatepass"))))
def test_manifests_of_datasets(content: bytes) -> None:
    with suppress(UserError):
        read_manifest(content, "m")
