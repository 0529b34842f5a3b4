"""Ten years, forty zones, two hundred expressions: the slots are those of the library that Kubernetes' CronJob uses."""

import shutil
import subprocess
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, takewhile
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim

from tests import ROOT
from tests.unit.controller.schedules.cron_expressions import END, START, ZONES, changes, expressions, for_croniter
from trainyard.api.schedule import timetable
from trainyard.api.schedule.timetable import parse_cron

MODULE = ROOT / "tests" / "cronreference"


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("the reference is a Go program; install Go to run it")
    program = tmp_path_factory.mktemp("reference") / "cronreference"
    subprocess.run(["go", "build", "-o", program, "."], cwd=MODULE, check=True)
    return program


def by_reference(program: Path, zone: str, expressions: list[str]) -> Iterator[set[datetime]]:
    question = "".join(
        f"{zone}\t{_for_robfig(e)}\t{START.timestamp():.0f}\t{END.timestamp():.0f}\n" for e in expressions
    )
    answer = subprocess.run([program], input=question, capture_output=True, text=True, check=True).stdout
    for line in answer.splitlines():
        yield {datetime.fromtimestamp(int(minute) * 60, UTC) for minute in line.split()}


@cache
def _walls(expression: str) -> list[datetime]:
    """cronsim's own walk through ten years of wall time. It knows no zone, so it is the same in all forty."""
    first, last = (t.replace(tzinfo=None) for t in (START - timedelta(days=2), END + timedelta(days=400)))
    return list(takewhile(lambda wall: wall < last, CronSim(expression, first)))


def replay(expression: str, start: datetime) -> Iterator[datetime]:
    """What `CronSim(expression, start)` gives, from the walk that was taken once."""
    walls = _walls(expression)
    return iter(walls[bisect_right(walls, start) :])


def test_a_replayed_walk_is_the_walk() -> None:
    start = datetime(2016, 3, 27, 2, 30, 17)
    for expression in ("30 2 * * *", "0 0 29 2 *", "0,30 */12 1-7 MAR,OCT 2-6/2"):
        walk = CronSim(expression, start)
        assert [next(walk) for _ in range(2)] == list(islice(replay(expression, start), 2))


@pytest.mark.load
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("zone", ZONES)
def test_ten_years_of_two_hundred_expressions(reference: Path, zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both agree on every slot of a zone whose clocks never change.

    Elsewhere robfig/cron loses its way behind some changes (those at midnight above all), because it steps by days and
    months from an hour that is no longer the one it began with: it misses slots, and fires on wrong days. There a third
    reading decides: croniter, asked whether the wall time of that very minute matches. It has to side with us.
    """
    info, chosen = ZoneInfo(zone), expressions(200)
    timetables = [parse_cron(expression, zone) for expression in chosen]
    monkeypatch.setattr(timetable, "CronSim", replay)
    steady = not changes(zone, START, END)
    compared = decided = 0
    for expression, table, theirs in zip(chosen, timetables, by_reference(reference, zone, chosen), strict=True):
        ours = set(table.slots(START, END))
        assert not steady or ours == theirs, expression
        compared, decided = compared + len(ours | theirs), decided + len(ours ^ theirs)
        # Seen: 71 of 688, in America/Asuncion, whose clocks change at midnight.
        assert len(ours ^ theirs) <= max(60, len(ours) // 8), f"{expression} in {zone}: that is another reading"
        for slot in ours ^ theirs:
            wall = slot.astimezone(info).replace(tzinfo=None)
            told = f"{expression} in {zone} at {slot} ({wall})"
            assert (slot in ours) == croniter.match(for_croniter(expression), wall), told
    print(f"\n{zone}: {compared} slots, {decided} of them decided by the third reading")


def _for_robfig(expression: str) -> str:
    """It knows no day 7."""
    head, _, weekday = expression.rpartition(" ")
    return f"{head} {'0' if weekday == '7' else weekday}"
