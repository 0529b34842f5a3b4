"""Ten years, forty zones, two hundred expressions: the slots are those of the library that Kubernetes' CronJob uses."""

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from crons import END, START, ZONES, expressions, for_croniter

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
    """Both agree on every slot but for hours after a change of the clock, where robfig/cron loses its way.

    It steps by hours and days, so behind some changes it fires on the wrong day, or not at all. There a third reading
    decides: croniter, asked whether the wall time of that very minute matches.
    """
    info, chosen = ZoneInfo(zone), expressions(200)
    for expression, theirs in zip(chosen, by_reference(reference, zone, chosen), strict=True):
        ours = set(parse_cron(expression, zone).slots(START, END))
        for slot in ours ^ theirs:
            wall = slot.astimezone(info).replace(tzinfo=None)
            told = f"{expression} in {zone} at {slot} ({wall})"
            assert (slot in ours) == croniter.match(for_croniter(expression), wall), told
            assert _just_after_a_change(slot, info), told


def _just_after_a_change(slot: datetime, zone: ZoneInfo) -> bool:
    return len({(slot - timedelta(hours=h)).astimezone(zone).utcoffset() for h in range(26)}) > 1


def _for_robfig(expression: str) -> str:
    """It knows no day 7."""
    head, _, weekday = expression.rpartition(" ")
    return f"{head} {'0' if weekday == '7' else weekday}"
