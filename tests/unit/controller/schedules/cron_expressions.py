"""Cron expressions and time zones that between them meet every kind of clock change there is."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_ZONES = """
UTC Europe/Berlin Europe/London Europe/Dublin Europe/Lisbon Europe/Istanbul Europe/Moscow Europe/Samara
Atlantic/Azores Africa/Casablanca Africa/Cairo Africa/Juba Africa/Lagos Africa/Sao_Tome Asia/Amman Asia/Beirut
Asia/Damascus Asia/Gaza Asia/Jerusalem Asia/Kathmandu Asia/Kolkata Asia/Pyongyang Asia/Tehran Asia/Tokyo
Asia/Ulaanbaatar America/Anchorage America/Asuncion America/Caracas America/Chicago America/Havana
America/Los_Angeles America/New_York America/Sao_Paulo America/Santiago America/St_Johns Antarctica/Troll
Australia/Adelaide Australia/Lord_Howe Pacific/Apia Pacific/Chatham
"""
ZONES = _ZONES.split()
"""40: changes at midnight, by half an hour, by two hours, in Ramadan, of the standard time itself, and none."""

_WRITTEN = """
0 0 * * *|30 2 * * *|0 3 * * 0|0 3 * * 7|30 1 * * SUN|0 0 1 * *|0 4 1 */3 *|15 2 1 1 *|0 0 29 2 *|59 23 31 12 *
0 9 * * MON-FRI|0 9 * * 1-5|0 22 * * FRI,SAT|30 2 13 * 5|0 0 */2 * 1|0 0 * * */2|0 12 1-7 * MON|0 0 31 * *|45 3 15 JAN-JUN *
5 4 * DEC *|0 2,14 * * *|0 1-3 * * SUN|*/20 2 * * SUN|0 */6 * * 0|0 0 1,15 * *|0 0 1 1 0|10-20/5 3 * * 6|0 0 30 4,6,9,11 *
0 5 8-14 * 2|30 0 * * *|59 1 * * *|0 2 * * *|1 3 * * *|30 3 * MAR,OCT,NOV *|0 0 2/7 * *|0 0 * * 1/2|0 6 * JUN-AUG SAT
"""


def expressions(count: int) -> list[str]:
    """Written ones first, then random ones; always the same. None comes more than about four times a day."""
    chosen = [e for e in _WRITTEN.replace("\n", "|").split("|") if e]
    dice = random.Random(20260101)
    while len(chosen) < count:
        if (expression := draw(dice)) not in chosen:
            chosen.append(expression)
    return chosen[:count]


def draw(dice: random.Random) -> str:
    """One expression in the grammar that Kubernetes shares (day 7 is ours alone)."""
    minute = str(dice.randrange(60)) if dice.random() < 0.8 else f"{dice.randrange(30)},{dice.randrange(30, 60)}"
    hour = dice.choice([str(dice.randrange(24)), str(dice.randrange(4)), "2", "1,3", "*/12", "0"])
    day = dice.choice(["*", "*", str(dice.randrange(1, 29)), "1-7", "*/5", "31", "10-20/3"])
    month = dice.choice(["*", "*", "MAR,OCT", "4-11", "*/3", "1-3"])
    weekday = dice.choice(["*", "*", "SUN", "0", "MON-FRI", "1,3,5", "6", "2-6/2"])
    return f"{minute} {hour} {day} {month} {weekday}"


def changes(zone: str, start: datetime, end: datetime) -> list[datetime]:
    """The hours in which the zone's offset changes; no zone here changes it twice within a day."""
    info, hour, day = ZoneInfo(zone), timedelta(hours=1), timedelta(days=1)

    def differs(moment: datetime, step: timedelta) -> bool:
        return moment.astimezone(info).utcoffset() != (moment + step).astimezone(info).utcoffset()

    days = (start + day * n for n in range((end - start).days))
    return [d + hour * n for d in days if differs(d, day) for n in range(24) if differs(d + hour * n, hour)]


def for_croniter(expression: str) -> str:
    """croniter takes `*/5` in a day field for a bare star (as Debian's cron does); Kubernetes does not."""
    minute, hour, day, month, weekday = expression.split()
    return " ".join((minute, hour, day.replace("*/", "1-31/"), month, weekday.replace("*/", "0-6/")))


START, END = datetime(2016, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)
"""Ten years that have been, so that no new rule of a government changes the result."""
