"""Readers on files that libraries stumble over: what is read all the same, and what is told with its place."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data import readers
from trainyard.trainer.data.convert import convert
from trainyard.trainer.data.formats import check
from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.readers import read_rows
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.select import columns_of, passes, seconds, time_of
from trainyard.trainer.data.sources import SourceFile
from trainyard.trainer.errors import UserError


def dataset(**fields: Any) -> Dataset:
    return Dataset.model_validate({"name": "d", "storageUri": "file:///x", **fields})


def table(tmp_path: Path, columns: dict[str, Any], *, used: Dataset | None = None) -> list[Row | Fault]:
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    file = SourceFile(tmp_path / "a.parquet", "a.parquet")
    return list(read_rows(file, "Parquet", columns_of(used) if used else None))


FAR = pyarrow.array([32_503_680_000_000, 253_402_300_800_000], pyarrow.timestamp("ms"))
"""The years 3000 and 10000; Python's times end before the second."""


class TestParquet:
    def test_a_time_beyond_the_year_9999_in_a_column_that_is_not_used(self, tmp_path: Path) -> None:
        for used in (None, dataset()):
            found = table(tmp_path, {"text": ["a", "b"], "until": FAR}, used=used)
            assert [row.value["text"] for row in found if isinstance(row, Row)] == ["a", "b"]

    def test_the_same_in_a_struct_that_is_used_is_told_with_its_row(self, tmp_path: Path) -> None:
        structs = pyarrow.StructArray.from_arrays([FAR], names=["until"])
        found = table(tmp_path, {"messages": structs, "x": [1, 2]}, used=dataset(format="Messages"))
        assert isinstance(found[0], Row)
        assert found[0].value == {"messages": {"until": "3000-01-01T00:00:00"}}
        assert str(found[1]).startswith(
            "a.parquet:2: field messages: a value of type struct<until: timestamp[ms]> cannot be"
        )

    def test_times_numbers_and_bytes_become_what_json_has(self, tmp_path: Path) -> None:
        (row,) = table(
            tmp_path,
            {
                "text": [b"as bytes"],
                "at": [datetime(2026, 1, 2, 3, tzinfo=UTC)],
                "nano": pyarrow.array([1_700_000_000_123_456_789], pyarrow.timestamp("ns")),
                "price": [Decimal("1.50")],
                "pairs": pyarrow.array([[("k", 1)]], pyarrow.map_(pyarrow.string(), pyarrow.int64())),
            },
        )
        assert isinstance(row, Row)
        assert check(row, "Text") == {"text": "as bytes"}
        assert row.value["at"] == "2026-01-02T03:00:00+00:00"
        assert row.value["nano"].startswith("2023-11-14T22:13:20.123456") or row.value["nano"].startswith(
            "2023-11-14 22:13"
        )
        assert row.value["price"] == "1.50"
        json.dumps(row.value)
        assert time_of(row, "at") == datetime(2026, 1, 2, 3, tzinfo=UTC).timestamp()

    def test_only_the_columns_that_are_used_are_read(self, tmp_path: Path) -> None:
        columns = {"q": ["a"], "text": ["t"], "image": [b"\x89PNG"], "lang": ["de"], "repo": ["r"], "at": [5]}
        (row,) = table(
            tmp_path,
            columns,
            used=dataset(
                columns={"text": "q"},
                filters=[{"field": "lang", "values": ["de"]}],
                split={"eval": 0.1, "groupBy": ["repo"]},
                limit=1,
                selectionStrategy="Latest",
                timeField="at",
            ),
        )
        assert isinstance(row, Row)
        assert sorted(row.value) == ["at", "lang", "q", "repo"]

    def test_all_of_them_are_read_where_one_is_missing_so_that_the_message_can_list_them(self, tmp_path: Path) -> None:
        (row,) = table(tmp_path, {"txt": ["a"], "id": [1]}, used=dataset())
        assert isinstance(row, Row)
        assert str(check(row, "Text")).endswith("format Text needs it; did you mean to call txt so?")

    def test_a_file_that_is_damaged_in_the_middle(self, tmp_path: Path) -> None:
        path = tmp_path / "a.parquet"
        rows = pyarrow.table({"text": [f"row {n} " * 20 for n in range(5000)]})
        pyarrow.parquet.write_table(rows, path, row_group_size=2500, compression="gzip")
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 200] = b"\xff" * 200
        path.write_bytes(content)
        found = list(read_rows(SourceFile(path, "a.parquet"), "Parquet"))
        assert isinstance(found[-1], Fault)
        assert found[-1].message.startswith(("cannot be read on after row ", "not a Parquet file: "))


class TestBounds:
    def test_a_line_without_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readers, "LINE_LIMIT", 1 << 20)
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "' + b"a" * (2 << 20) + b'"}\n'))
        first, second = read_rows(SourceFile(tmp_path / "a.jsonl.gz", "a.jsonl.gz"), "JSONL")
        assert isinstance(first, Row)
        assert str(second) == "a.jsonl.gz:2: the line is longer than 1 MiB; split the record"

    def test_a_small_packed_file_with_a_large_content(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(readers, "JSON_LIMIT", 1 << 20)
        (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[" + b" " * (2 << 20) + b"]"))
        with pytest.raises(UserError, match=r"a\.json\.gz is larger than 1 MiB"):
            list(read_rows(SourceFile(tmp_path / "a.json.gz", "a.json.gz"), "JSON"))


class TestOddValues:
    def test_numbers_that_python_cannot_turn_into_floats(self) -> None:
        value = json.loads('{"n": 1' + "0" * 400 + "}")
        condition = dataset(filters=[{"field": "n", "operator": "GreaterThan", "values": ["5"]}]).filters
        passes(value, condition)
        assert seconds(value["n"]) is None
        assert str(time_of(Row("f", 1, value), "n")).startswith("f:1: field n: 1000")

    def test_a_solution_that_says_to_be_a_call_and_is_none_stays_a_text(self) -> None:
        record = {"problem": "p", "initial_answer": "", "reasoning_steps": [], "metadata": {"type": "function_call"}}
        for solution in ("restart it", "{", "[1]", '{"arguments": {}}'):
            found = convert({**record, "solution": solution}, "TRM", "Messages")
            assert found == {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": solution}]}
        called = convert({**record, "solution": '{"name": "run_command", "arguments": {}}'}, "TRM", "Messages")
        assert called is not None
        assert called["messages"][1]["tool_calls"][0]["function"]["name"] == "run_command"

    @pytest.mark.parametrize(
        "record",
        [
            {"kind": "series", "values": [[n, n % 7] for n in range(100)], "metric": ["a"]},
            {"kind": "series", "values": [[1e18 + n * 1e6, n % 7] for n in range(100)], "metric": {}},
            {"kind": "log", "line": "a", "timestamp_ns": "soon", "labels": {}},
            {"kind": "log", "line": "a", "timestamp_ns": 1, "labels": ["a"]},
            {"kind": "runbook_entry", "title": "t", "symptom": "s", "commands": 5},
        ],
        ids=lambda record: f"{record['kind']}",
    )
    def test_a_record_of_a_kind_that_has_not_its_form(self, record: dict[str, Any]) -> None:
        found = list(examples_of([Row("mine.jsonl", 3, record)], []))
        assert next(str(f) for f in found if isinstance(f, Fault)).startswith(
            f"mine.jsonl:3: is no record of kind {record['kind']} as collectors write it"
        )
