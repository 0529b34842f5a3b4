"""Slots against other people's reading of the same expression, and both nights on which clocks change."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter_range
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.controller.schedules.cron_expressions import END, START, ZONES, changes, draw, expressions, for_croniter
from trainyard.api.schedule.timetable import Interval, InvalidTimetable, count_slots, newest_slot, next_slot, parse_cron


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(expression: str, zone: str, start: str, end: str) -> list[str]:
    return [f"{s:%m-%d %H:%M}" for s in parse_cron(expression, zone).slots(at(start), at(end))]


def test_a_skipped_hour_does_not_fire() -> None:
    # Berlin, 29 March 2026: 02:00 becomes 03:00 at 01:00 UTC.
    assert slots("30 2 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31") == ["03-28 01:30", "03-30 00:30"]
    assert slots("0 3 * * *", "Europe/Berlin", "2026-03-28", "2026-03-31") == [
        "03-28 02:00",
        "03-29 01:00",
        "03-30 01:00",
    ]


def test_a_repeated_hour_fires_twice() -> None:
    # Berlin, 25 October 2026: 03:00 becomes 02:00 at 01:00 UTC.
    assert slots("30 2 * * *", "Europe/Berlin", "2026-10-24", "2026-10-26") == [
        "10-24 00:30",
        "10-25 00:30",
        "10-25 01:30",
    ]
    assert slots("0 3 * * *", "Europe/Berlin", "2026-10-25", "2026-10-26") == ["10-25 02:00"]


def test_a_change_at_midnight_skips_a_midnight() -> None:
    # Santiago, 6 September 2026: midnight becomes 01:00.
    assert slots("0 0 * * *", "America/Santiago", "2026-09-05", "2026-09-08") == ["09-05 04:00", "09-07 03:00"]


def test_every_quarter_of_an_hour_is_even_through_both_nights() -> None:
    for night in ("2026-03-28", "2026-10-24"):
        start = at(night)
        found = list(parse_cron("*/15 * * * *", "Europe/Berlin").slots(start, start + timedelta(days=2)))
        assert found == [start + timedelta(minutes=15 * n) for n in range(1, 193)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 9 * * 7", "0 9 * * 0"),
        ("0 9 * * 5-7", "0 9 * * FRI,SAT,SUN"),
        ("0 9 * jan mon", "0 9 * 1 1"),
        ("0 9 * * 1/2", "0 9 * * 1,3,5"),
        ("0 9 */1 * MON", "0 9 * * 1"),
        ("5/20 9 * * *", "5,25,45 9 * * *"),
    ],
)
def test_ways_of_writing_the_same(one: str, other: str) -> None:
    window = (at("2026-01-01"), at("2026-12-31"))
    assert list(parse_cron(one, "UTC").slots(*window)) == list(parse_cron(other, "UTC").slots(*window))


def test_two_day_fields_mean_either() -> None:
    assert slots("0 0 13 * FRI", "UTC", "2026-02-01", "2026-02-28") == [f"02-{day:02} 00:00" for day in (6, 13, 20, 27)]
    assert slots("0 0 */10 * MON", "UTC", "2026-06-01", "2026-06-15") == ["06-08 00:00", "06-11 00:00", "06-15 00:00"]


@pytest.mark.parametrize(
    ("expression", "zone", "said"),
    [
        ("@often", "UTC", "1 fields instead of 5"),
        ("* * * * * *", "UTC", "6 fields"),
        ("61 * * * *", "UTC", "minute"),
        ("* 24 * * *", "UTC", "hour"),
        ("0 0 L * *", "UTC", "day of month 'L'"),
        ("0 0 * * 1#2", "UTC", "day of week"),
        ("*/0 * * * *", "UTC", "minute"),
        ("5-1 * * * *", "UTC", "minute"),
        ("0 0 31 2 *", "UTC", "no such day"),
        ("0 0 31 2,4 *", "UTC", "no such day"),
        ("0 0 * * *", "Europe/Atlantis", "'Europe/Atlantis' is not a time zone"),
        ("0 0 * * *", "../etc/passwd", "is not a time zone"),
    ],
)
def test_what_is_refused(expression: str, zone: str, said: str) -> None:
    with pytest.raises(InvalidTimetable, match=said.replace("[", r"\[")):
        parse_cron(expression, zone)


def test_the_29th_of_february_is_found_over_the_gap_of_2100() -> None:
    assert next_slot(parse_cron("0 0 29 2 *", "UTC"), at("2096-03-01")) == at("2104-02-29")


def test_intervals() -> None:
    every = Interval(at("2026-01-01T00:00:30"), 90)
    assert next_slot(every, at("2026-01-01")) == at("2026-01-01T00:02:00")
    assert next_slot(every, at("2026-01-01T00:02:00")) == at("2026-01-01T00:03:30")
    assert newest_slot(every, at("2026-01-01"), at("2026-01-01T00:05:01")) == at("2026-01-01T00:05:00")
    assert newest_slot(every, at("2026-01-01T00:02"), at("2026-01-01T00:03")) is None
    assert count_slots(every, at("2026-01-01"), at("2026-01-02")) == 959


ORACLE_ZONES = {zone: changes(zone, START, END) for zone in ZONES[1:14]}


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32), zone=st.sampled_from(sorted(z for z, c in ORACLE_ZONES.items() if c)), data=st.data()
)
def test_around_a_change_of_the_clock_croniter_agrees_minute_by_minute(
    seed: int, zone: str, data: st.DataObject
) -> None:
    expression = draw(random.Random(seed))
    start = data.draw(st.sampled_from(ORACLE_ZONES[zone])) - timedelta(hours=3)
    found = list(parse_cron(expression, zone).slots(start, start + timedelta(hours=7)))
    minutes = [start + timedelta(minutes=n) for n in range(1, 7 * 60 + 1)]
    clock = [m.astimezone(ZoneInfo(zone)).replace(tzinfo=None) for m in minutes]
    fires = set(croniter_range(min(clock), max(clock), for_croniter(expression)))
    assert found == [m for m, shown in zip(minutes, clock, strict=True) if shown in fires]


@settings(max_examples=60)
@given(
    expression=st.sampled_from(expressions(200)),
    zone=st.sampled_from(ZONES),
    start=st.datetimes(datetime(2016, 1, 1), datetime(2025, 1, 1)).map(lambda d: d.replace(tzinfo=UTC)),
    hours=st.integers(1, 4000),
)
def test_the_ways_of_asking_agree(expression: str, zone: str, start: datetime, hours: int) -> None:
    timetable, end = parse_cron(expression, zone), start + timedelta(hours=hours)
    found = list(timetable.slots(start, end))
    assert found == sorted(set(found))
    assert newest_slot(timetable, start, end) == (found[-1] if found else None)
    assert count_slots(timetable, start, end) == len(found)
    following = next_slot(timetable, start)
    assert following is not None
    assert (following in found[:1]) if found else following > end


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @ANNUALLY ", "0 0 1 1 *"),
    ],
)
def test_short_forms_are_those_of_kubernetes(short: str, long: str) -> None:
    assert parse_cron(short, "Europe/Berlin") == parse_cron(long, "Europe/Berlin")
