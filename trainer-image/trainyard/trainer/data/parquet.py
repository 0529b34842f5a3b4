"""Rows of Parquet files, as JSON would have them.

Only the columns that a dataset uses are read, where it is known that they are there. Parquet holds values that Python or
JSON have no word for: times after the year 9999, bytes, structs with such things in them. Columns become values one by one,
so that such a value matters where its field is used and nowhere else, and is then told with its row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import Any

from trainyard.trainer.data.row import Fault, Row, repeated
from trainyard.trainer.data.sources import SourceFile
from trainyard.trainer.errors import first_line

BATCH = 1024


@dataclass(frozen=True)
class Columns:
    """Which columns are used: those that have to be there, and those that may be."""

    needed: frozenset[str]
    further: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that cannot be read."""

    why: str


def read_parquet(file: SourceFile, used: Columns | None = None) -> Iterator[Row | Fault]:
    """All rows in order; without `used`, with all columns. Raises OSError where the disk is at fault."""
    import pyarrow.parquet

    number = 0
    try:
        table = pyarrow.parquet.ParquetFile(file.path)
        names = table.schema_arrow.names
        if twice := repeated(names):
            yield Fault(file.name, f"has two columns {twice}; rename or remove one of them")
            return
        for batch in table.iter_batches(batch_size=BATCH, columns=_chosen(names, used)):
            columns = {name: _values(batch.column(n)) for n, name in enumerate(batch.schema.names)}
            for place in range(batch.num_rows):
                number += 1
                yield _row(file.name, number, {name: values[place] for name, values in columns.items()}, used)
    except Exception as error:
        # Damaged pages, unknown encodings, encryption: its readers raise errors of many kinds.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        told = f"cannot be read on after row {number}" if number else "not a Parquet file"
        yield Fault(file.name, f"{told}: {first_line(error, 300)}")


def _row(source: str, number: int, value: dict[str, Any], used: Columns | None) -> Row | Fault:
    """The row, without values that cannot be read and are not used; the fault that it is, if one is."""
    odd = [name for name, found in value.items() if isinstance(found, Unreadable)]
    for name in odd:
        if used is not None and name in used.needed | used.further:
            return Fault(f"{source}:{number}", f"field {name}: {value[name].why}")
        del value[name]
    return Row(source, number, value)


def _chosen(names: list[str], used: Columns | None) -> list[str] | None:
    """The columns to read; None for all of them, also where one is missing, because the message lists what is there."""
    if used is None or not used.needed <= set(names):
        return None
    chosen = [name for name in names if name in used.needed | used.further]
    return None if any("." in name for name in chosen) else chosen


def _values(column: Any) -> list[Any]:
    try:
        return [_plain(value) for value in column.to_pylist()]
    except Exception:
        return [_value(column[place]) for place in range(len(column))]


def _value(scalar: Any) -> Any:
    try:
        return _plain(scalar.as_py())
    except Exception as error:
        try:
            return scalar.cast("string").as_py()  # what Python's own types have no room for
        except Exception:
            return Unreadable(f"a value of type {scalar.type} cannot be read: {first_line(error, 300)}")


def _plain(value: Any) -> Any:
    match value:
        case None | str() | bool() | int() | float():
            return value
        case dict():
            return {str(key): _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as error:
                raise ValueError("its bytes are no UTF-8 text") from error
    return str(value)
