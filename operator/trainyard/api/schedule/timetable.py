"""When a schedule fires: cron expressions and fixed intervals, as instants in UTC.

A cron expression speaks of wall time, and the rule here is the one of Kubernetes' CronJob: the schedule fires at every
instant whose wall time in the zone matches. Two nights a year differ from what people expect, and both follow from that
rule alone:

* clocks go forward: wall times inside the skipped hour never happen, so `30 2 * * *` does not fire on that day;
* clocks go back: wall times of the repeated hour happen twice, so `30 1 * * *` fires twice, one hour apart.

`minIntervalSeconds` keeps a daily schedule from the second of the two, and an hour outside of 00:00 to 03:59 from both.

cronsim parses expressions and walks over wall times. It is never shown a time zone (its own rule is that of Debian's
cron): time is cut into stretches of constant UTC offset, and within one stretch wall time is nothing but UTC plus that
offset.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

DEFAULT_ZONE = "Etc/UTC"
FAR = timedelta(days=366 * 8 + 2)
"""29 February comes after eight years at the latest."""
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)

NICKNAMES = {
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
    "@MONTHLY": "0 0 1 * *",
    "@WEEKLY": "0 0 * * 0",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@HOURLY": "0 * * * *",
}
"""As in Kubernetes' CronJob."""
_FIELDS = ("minute", "hour", "day of month", "month", "day of week")
_VALUE = "(?:[0-9]{1,2}|[A-Z]{3})"
_ITEM = re.compile(rf"(\*|{_VALUE}(?:-{_VALUE})?)(?:/[0-9]{{1,2}})?")


class InvalidTimetable(ValueError):
    """An expression or a zone that cannot be used; the message names the value and the way out."""


class Timetable(Protocol):
    """A source of slots."""

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """All slots with `after < slot <= until`, ascending, in UTC."""


def next_slot(timetable: Timetable, after: datetime) -> datetime | None:
    """The first slot after this moment; None when there is none within eight years."""
    start = after
    for days in (2, 40, 400):  # near slots are the rule, and cost no look at the changes of clocks in years to come
        if slot := next(timetable.slots(start, after + days * _DAY), None):
            return slot
        start = after + days * _DAY
    return next(timetable.slots(start, after + FAR), None)


def newest_slot(timetable: Timetable, after: datetime, until: datetime) -> datetime | None:
    """The last slot with `after < slot <= until`.

    Looks back in growing strides, so that after a year of standstill a schedule of every minute costs an hour of slots.
    """
    stride, end = timedelta(hours=1), until
    while end > after:
        start = max(after, end - stride)
        newest = None
        for newest in timetable.slots(start, end):  # noqa: B007 - the last one is wanted
            pass
        if newest is not None:
            return newest
        end, stride = start, min(stride * 8, timedelta(days=400))
    return None


def count_slots(timetable: Timetable, after: datetime, until: datetime, *, limit: int = 5000) -> int:
    """How many slots there are with `after < slot <= until`; never more than `limit`."""
    return sum(1 for _, _ in zip(range(limit), timetable.slots(after, until), strict=False))


@dataclass(frozen=True)
class Interval:
    """A slot every so many seconds, counted from `base`, which is no slot itself."""

    base: datetime
    seconds: int

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        number = max(1, int((after - self.base).total_seconds() // self.seconds) + 1)
        while (slot := self.base + timedelta(seconds=number * self.seconds)) <= until:
            yield slot
            number += 1


@dataclass(frozen=True)
class Cron:
    """A cron expression in a time zone. Make it with `parse_cron`."""

    expression: str
    zone: ZoneInfo

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        start, offset = after.astimezone(UTC), self._offset(after)
        segment = start
        while start < until:
            end = self._change(segment, until)
            for wall in CronSim(self.expression, (start + offset).replace(tzinfo=None)):
                slot = wall.replace(tzinfo=UTC) - offset
                if slot > until:
                    if end is None:
                        return
                    break
                if end is not None and slot >= end:
                    break
                yield slot
            if end is None:
                return
            segment, offset = end, self._offset(end)
            start = end - _SECOND  # excluded itself, so that a slot at the very change counts

    def _offset(self, moment: datetime) -> timedelta:
        return moment.astimezone(self.zone).utcoffset() or timedelta(0)

    def _change(self, start: datetime, until: datetime) -> datetime | None:
        """The first whole second after `start`, and not after `until`, that has another offset than `start`."""
        offset, low = self._offset(start), start
        while True:
            if low >= until:
                return None
            high = min(low + _DAY, until)
            if self._offset(high) != offset:
                break
            low = high
        while high - low > _SECOND:
            middle = low + (high - low) / 2
            if self._offset(middle) == offset:
                low = middle
            else:
                high = middle
        return high.replace(microsecond=0)


def parse_zone(name: str) -> ZoneInfo:
    """The zone of this IANA name. Raises `InvalidTimetable`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTimetable(
            f"{name!r} is not a time zone: write an IANA name like Europe/Berlin, America/New_York or Etc/UTC"
        ) from None


@lru_cache(maxsize=4096)
def parse_cron(expression: str, zone: str) -> Cron:
    """A timetable from five fields. Raises `InvalidTimetable` that says which field is wrong."""
    written = expression.strip().upper()
    fields = NICKNAMES.get(written, written).split()
    if len(fields) != len(_FIELDS):
        raise InvalidTimetable(
            f"{expression!r} has {len(fields)} fields instead of 5 (minute, hour, day of month, month, day of week); "
            f"of the short forms there are {', '.join(NICKNAMES).lower()}; for an interval set intervalSeconds"
        )
    for name, field in zip(_FIELDS, fields, strict=True):
        if not all(_ITEM.fullmatch(item) for item in field.split(",")):
            raise InvalidTimetable(f"{name} {field!r} in {expression!r}: write *, 5, 1-5, MON, */15 or a list of these")
    canonical = " ".join((*fields[:2], _day(fields[2], "1-31"), fields[3], _day(fields[4], "0-6")))
    try:
        timetable = Cron(canonical, parse_zone(zone))
        CronSim(canonical, datetime(2000, 1, 1))
    except CronSimError as error:
        field = str(error).lower().removeprefix("bad ").replace("-", " ")
        raise InvalidTimetable(f"{expression!r}: the {field} is outside of its range, or no such day exists") from None
    if next_slot(Cron(canonical, ZoneInfo("UTC")), datetime(2000, 1, 1, tzinfo=UTC)) is None:
        raise InvalidTimetable(f"{expression!r} never comes, because no such day exists: correct the day or the month")
    return timetable


def _day(field: str, every: str) -> str:
    """Days as Kubernetes reads them: only a bare `*` leaves the choice to the other day field, `*/2` is a choice itself."""
    items = field.split(",")
    if "*" in items or "*/1" in items:
        return "*"
    low, _, high = every.partition("-")
    written = []
    for item in items:
        base, slash, step = item.partition("/")
        if base == "*":
            base = f"{low}-{high}"
        elif slash and "-" not in base:
            base = f"{base}-{high}"  # 3/2 goes on to the end of the field, where 7 is not one more day
        written.append(base + slash + step)
    return ",".join(written)
