"""Ten years, forty zones, two hundred expressions: the slots are those of the library that Kubernetes' CronJob uses."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from crons import END, START, ZONES, changes, expressions, for_croniter

from trainyard.controller.schedules.timetable import parse_cron

MODULE = Path(__file__).parents[2] / "cronreference"


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


@pytest.mark.load
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("zone", ZONES)
def test_ten_years_of_two_hundred_expressions(reference: Path, zone: str) -> None:
    """Both agree on every slot of a zone whose clocks never change.

    Elsewhere robfig/cron loses its way behind some changes (those at midnight above all), because it steps by days and
    months from an hour that is no longer the one it began with: it misses slots, and fires on wrong days. There a third
    reading decides: croniter, asked whether the wall time of that very minute matches. It has to side with us.
    """
    info, chosen = ZoneInfo(zone), expressions(200)
    steady = not changes(zone, START, END)
    for expression, theirs in zip(chosen, by_reference(reference, zone, chosen), strict=True):
        ours = set(parse_cron(expression, zone).slots(START, END))
        assert not steady or ours == theirs, expression
        assert len(ours ^ theirs) <= max(60, len(ours) // 10), f"{expression} in {zone}: that is another reading"
        for slot in ours ^ theirs:
            wall = slot.astimezone(info).replace(tzinfo=None)
            told = f"{expression} in {zone} at {slot} ({wall})"
            assert (slot in ours) == croniter.match(for_croniter(expression), wall), told


def _for_robfig(expression: str) -> str:
    """It knows no day 7."""
    head, _, weekday = expression.rpartition(" ")
    return f"{head} {'0' if weekday == '7' else weekday}"
