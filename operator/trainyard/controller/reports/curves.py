"""The curves of one run as a small table: times, steps and a column of 32-bit numbers for each metric. Pure.

When the table is full, every second row goes, and from then on only every second one (then every fourth …) stays of those that
come, so a curve of any length is equally fine from its beginning to its end. The newest row is there in any case. Rows with a
value of the evaluation stay longer than the others, because there are few of them. As text (for the keeper) a table is
compressed JSON of numbers.
"""

import heapq
import json
import math
import zlib
from array import array
from collections.abc import Iterable, Mapping
from itertools import compress
from typing import Any, cast, get_args

from trainyard.controller.reports.history import MARKS, POINTS, Curves, Mark, MarkKind, Point

COLUMNS = 32
"""Metrics of one run that are kept; those that come later are not."""
FEWEST = 32
"""Rows below which a table is not thinned to save memory."""
LARGEST_STRIDE = 2**40
RARE = "eval_"
"""How the names of values begin of which a training has few."""
TEXT_LIMIT = 128 * 1024
"""Bytes of a table as text."""
_UNPACKED_LIMIT = 4 * 2**20
_BYTES_OF_A_TABLE = 2048
_NAME_LENGTH = 64
_NAN = math.nan


class Table:
    """Points and marks of one run, in the order in which they came."""

    def __init__(self) -> None:
        self._times = array("d")
        self._steps = array("q")
        self._columns: dict[str, array[float]] = {}
        self._last: dict[str, float] = {}
        self._repeats = False
        self._stride = 1
        """One of so many rows stays."""
        self._rows_seen = 0
        self._passing = False
        """Whether the last row goes when the next one comes."""
        self.marks: list[Mark] = []

    def __len__(self) -> int:
        return len(self._times)

    @property
    def size(self) -> int:
        """Bytes, about."""
        return _BYTES_OF_A_TABLE + len(self) * (16 + 4 * len(self._columns)) + 200 * len(self.marks)

    def add(self, point: Point, *, repeats: bool = False) -> Point | None:
        """The point as it was taken; None where it says nothing new.

        With `repeats` it is of a reporter that says the value of an evaluation again in reports that follow it: that counts once.
        What is older than the newest point in both time and step has been told before.
        """
        self._repeats |= repeats
        values = {
            name: value
            for name, value in point.values.items()
            if math.isfinite(value)
            and self._has_room(name)
            and not (repeats and name.startswith(RARE) and self._last.get(name) == value)
        }
        same_step = bool(self._steps) and self._steps[-1] == point.step
        if self._steps and point.time <= self._times[-1] and point.step <= self._steps[-1] and not same_step:
            return None
        if same_step:
            values = {name: value for name, value in values.items() if self._last.get(name) != value}
        if not values:
            return None
        if not same_step:
            if self._passing:
                self._times.pop()
                self._steps.pop()
                for column in self._columns.values():
                    column.pop()
            self._passing = self._rows_seen % self._stride != 0
            self._rows_seen += 1
            self._times.append(point.time)
            self._steps.append(point.step)
            for column in self._columns.values():
                column.append(_NAN)
        for name, value in values.items():
            self._set(name, value)
            self._passing &= not name.startswith(RARE)
        if len(self) > POINTS:
            self.thin()
        return Point(point.time, point.step, values)

    def mark(self, mark: Mark) -> None:
        """Something has happened."""
        self.marks.append(mark)
        del self.marks[:-MARKS]

    def thin(self) -> None:
        """Let every second row go, but the last, and of those that come keep half as many."""
        self._stride *= 2
        rows, last = len(self), len(self) - 1
        rare = [column for name, column in self._columns.items() if name.startswith(RARE)]
        keep = [at % 2 == 0 or at == last or any(not math.isnan(c[at]) for c in rare) for at in range(rows)]
        if sum(keep) > 0.75 * rows:
            keep = [at % 2 == 0 or at == last for at in range(rows)]
        self._times = array("d", compress(self._times, keep))
        self._steps = array("q", compress(self._steps, keep))
        self._columns = {name: array("f", compress(column, keep)) for name, column in self._columns.items()}

    def curves(self) -> Curves:
        """For readers."""
        columns = list(self._columns.items())
        points = (
            Point(time, step, {name: round_off(c[at]) for name, c in columns if not math.isnan(c[at])})
            for at, (time, step) in enumerate(zip(self._times, self._steps, strict=True))
        )
        return Curves(tuple(points), tuple(self.marks))

    def preceded_by(self, earlier: "Table") -> "Table":
        """Both, what was known earlier first; of what both have, this one's."""
        whole = Table()
        own = self.curves()
        times = [*(point.time for point in own.points), *(mark.time for mark in own.marks)]
        begin = min(times, default=math.inf)
        for point in earlier.curves().points:
            if point.time < begin:
                whole.add(point)
        for point in own.points:
            whole.add(point, repeats=self._repeats)
        before = [mark for mark in earlier.marks if mark.time < begin]
        whole._stride = max(whole._stride, self._stride, earlier._stride)
        known = {(mark.kind, mark.text or mark.step) for mark in before}
        whole.marks = [*before, *(mark for mark in own.marks if (mark.kind, mark.text or mark.step) not in known)][
            -MARKS:
        ]
        return whole

    def copy(self) -> "Table":
        """One that does not change with this one."""
        other = Table()
        other._times, other._steps, other._last = self._times[:], self._steps[:], dict(self._last)
        other._stride, other._repeats = self._stride, self._repeats
        other._columns = {name: column[:] for name, column in self._columns.items()}
        other.marks = list(self.marks)
        return other

    def pack(self, *, limit: int = TEXT_LIMIT) -> bytes:
        """As bytes, thinned until they fit."""
        table = self
        while len(packed := zlib.compress(table._text().encode(), 6)) > limit and len(table) > 1:
            table = table.copy()
            table.thin()
        return packed

    @classmethod
    def unpack(cls, packed: bytes) -> "Table":
        """What was packed; an empty one where somebody has written something else in its place."""
        try:
            text = zlib.decompressobj().decompress(packed, _UNPACKED_LIMIT)
            return cls._of(json.loads(text))
        except (zlib.error, ValueError, KeyError, TypeError, OverflowError, AttributeError, RecursionError):
            return cls()

    def _text(self) -> str:
        start = self._times[0] if self._times else 0.0
        facts = {
            "start": start,
            "stride": self._stride,
            "times": [round(time - start, 1) for time in self._times],
            "steps": list(self._steps),
            "columns": {n: [None if math.isnan(v) else round_off(v) for v in c] for n, c in self._columns.items()},
            "marks": [[mark.time, mark.step, mark.kind, mark.text] for mark in self.marks],
        }
        return json.dumps(facts, separators=(",", ":"))

    @classmethod
    def _of(cls, facts: Mapping[str, Any]) -> "Table":
        table = cls()
        start, columns = float(facts["start"]), list(facts["columns"].items())[:COLUMNS]
        for at, (time, step) in enumerate(zip(facts["times"], facts["steps"], strict=True)):
            values = {str(name)[:_NAME_LENGTH]: float(c[at]) for name, c in columns if c[at] is not None}
            table.add(Point(start + float(time), int(step), values))
        table._stride = min(max(1, int(facts["stride"])), LARGEST_STRIDE)
        for time, step, kind, text in facts["marks"]:
            if kind in get_args(MarkKind):
                table.mark(Mark(float(time), int(step), cast(MarkKind, kind), str(text)[:256]))
        return table

    def _has_room(self, name: str) -> bool:
        return name in self._columns or (len(self._columns) < COLUMNS and len(name) <= _NAME_LENGTH)

    def _set(self, name: str, value: float) -> None:
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = array("f", [_NAN]) * len(self)
        try:
            column[-1] = value
        except OverflowError:
            column[-1] = _NAN  # beyond what 32 bits hold, no curve shows anything
        self._last[name] = value


def round_off(value: float) -> float:
    """To the digits that 32 bits hold, so that 0.45 is not told as 0.449999988."""
    return float(f"{value:.7g}")


def halve_until(tables: Iterable[Table], *, limit: int) -> int:
    """Thin the largest until all together take no more than so many bytes, or none can be thinned. The bytes that they take."""
    largest = [(-table.size, at, table) for at, table in enumerate(tables)]
    heapq.heapify(largest)
    total = -sum(size for size, _, _ in largest)
    while total > limit and largest:
        size, at, table = heapq.heappop(largest)
        if len(table) >= 2 * FEWEST:
            table.thin()
            total += size + table.size
            heapq.heappush(largest, (-table.size, at, table))
    return total
