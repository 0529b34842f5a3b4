"""What follows from a look at a source, and how a file's change is told."""

import hashlib
import random
import tracemalloc
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.api.schedule.status import TriggerStatus
from trainyard.api.schedule.triggers import Trigger
from trainyard.controller.schedules.observed import Look, Reading
from trainyard.controller.schedules.triggers.judge import fired, judge
from trainyard.controller.schedules.triggers.sketch import Sketch, changed_share

NOW = datetime(2026, 1, 1, tzinfo=UTC)


# Judging


def trigger(**kind: Any) -> Trigger:
    return Trigger.model_validate({"name": "t", **kind})


GIT = {"gitPath": {"url": "http://git/repo.git"}}
PROM = {"prometheus": {"url": "http://p", "query": "up", "comparison": "LessThan", "threshold": 1, "forSeconds": 60}}


@dataclass
class Life:
    """A trigger over time; every start that is possible is made."""

    trigger: Trigger
    status: TriggerStatus | None = None
    now: datetime = NOW
    fired: int = 0
    last: Reading | None = field(default=None)

    def see(self, token: str, holds: bool | None = None) -> None:
        self.last = Reading(self.now, token, token, holds)
        self._judge(Look(self.now, self.last))

    def fail(self) -> None:
        self._judge(Look(self.now, self.last, "connection refused"))

    def _judge(self, look: Look | None) -> None:
        verdict = judge(self.trigger, self.status, look, self.now)
        self.status = verdict.status
        if verdict.ready:
            self.fired += 1
            self.status = fired(verdict.status, look, self.now)

    def restart(self) -> None:
        self.last = None
        self._judge(None)

    def later(self, seconds: int) -> "Life":
        self.now += timedelta(seconds=seconds)
        return self


def test_a_change_starts_once_and_a_restart_nothing() -> None:
    life = Life(trigger(**GIT))
    for token in ("a", "a", "b", "b", "b"):
        life.see(token)
    assert life.fired == 1
    life.restart()
    life.see("b")
    assert life.fired == 1
    life.see("c")
    assert life.fired == 2


def test_a_change_while_nobody_watched_is_seen_afterwards() -> None:
    life = Life(trigger(**GIT))
    life.see("a")
    life.restart()
    life.later(10_000).see("b")
    assert life.fired == 1


def test_a_source_that_is_down_starts_nothing() -> None:
    life = Life(trigger(**GIT))
    life.see("a")
    for _ in range(60):
        life.later(10).fail()
    assert life.fired == 0
    assert life.status is not None
    assert life.status.failing
    assert life.status.message == "connection refused"
    life.see("a")
    assert (life.fired, life.status.failing) == (0, None)


def test_cooldown_holds_a_change_back_and_does_not_lose_it() -> None:
    life = Life(trigger(**GIT, cooldownSeconds=600))
    for token in ("a", "b"):
        life.see(token)
    life.later(60).see("c")
    assert life.fired == 1
    life.later(600).see("c")
    assert life.fired == 2


def test_a_state_has_to_hold_and_starts_once_while_it_lasts() -> None:
    life = Life(trigger(**PROM))
    life.see("holds", True)
    life.later(59).see("holds", True)
    assert life.fired == 0
    life.later(1).see("holds", True)
    life.later(3600).see("holds", True)
    life.restart()
    life.see("holds", True)
    assert life.fired == 1
    life.see("quiet", False)
    life.see("holds", True)
    life.later(60).see("holds", True)
    assert life.fired == 2


def test_a_state_that_lapses_in_between_counts_anew() -> None:
    life = Life(trigger(**PROM))
    for seconds, holds in ((0, True), (50, False), (5, True), (50, True)):
        life.later(seconds).see("holds" if holds else "quiet", holds)
    assert life.fired == 0
    life.later(10).see("holds", True)
    assert life.fired == 1


def test_an_outage_is_not_time_for_which_a_state_has_held() -> None:
    life = Life(trigger(**PROM))
    life.see("holds", True)
    life.later(600).fail()
    life.see("holds", True)
    assert life.fired == 0


def test_an_edited_trigger_begins_anew_and_fires_nothing() -> None:
    life = Life(trigger(**GIT))
    life.see("a")
    life.trigger = trigger(gitPath={"url": "http://git/other.git"})
    life.see("b")
    assert life.fired == 0
    life.trigger = trigger(gitPath={"url": "http://git/other.git"}, pollSeconds=77)
    life.see("c")
    assert life.fired == 1


# Sketches


def made(lines: list[bytes], *, piece: int = 1000) -> str:
    sketch, whole = Sketch(), b"\n".join(lines) + b"\n"
    for start in range(0, len(whole), piece):
        sketch.feed(whole[start : start + piece])
    return sketch.result()


@pytest.mark.parametrize("new", [0, 100, 500, 2000])
def test_a_sketch_estimates_the_share_of_changed_lines(new: int) -> None:
    lines = [b"line %d" % n for n in range(2000)]
    after = lines[new:] + [b"new %d" % n for n in range(new)]
    true = 2 * new / (2000 + new)
    assert changed_share(made(lines), made(after)) == pytest.approx(true, abs=0.1)


def test_a_sketch_does_not_depend_on_pieces_and_notices_order() -> None:
    lines = [b"line %d" % n for n in range(500)]
    shuffled = random.Random(1).sample(lines, len(lines))
    assert made(lines, piece=7) == made(lines, piece=10**6)
    assert made(lines) != made(shuffled)
    assert changed_share(made(lines), made(shuffled)) == 0
    assert len(made(lines)) < 8192


@given(st.lists(st.sampled_from([b"a", b"bc", b"\r", b"\n", b"\r\n", b"\0"]), max_size=30), st.integers(1, 5))
def test_a_sketch_is_that_of_the_lines_however_they_are_cut(parts: list[bytes], piece: int) -> None:
    content = b"".join(parts)
    *lines, rest = content.split(b"\n")
    lines += [rest] if rest else []
    numbers = {hashlib.blake2b(line.rstrip(b"\r"), digest_size=6).hexdigest() for line in lines}
    sketch = Sketch()
    for start in range(0, len(content), piece):
        sketch.feed(content[start : start + piece])
    assert sketch.result() == f"{hashlib.sha256(content).hexdigest()}:{''.join(sorted(numbers))}"
    assert sketch.lines == len(lines)


@pytest.mark.parametrize("content", [b"x", b"\r", b"x\r"])
def test_a_file_without_an_end_of_line_costs_no_memory(content: bytes) -> None:
    sketch, piece = Sketch(), content * (2**16 // len(content))
    tracemalloc.start()
    for _ in range(64 * 2**20 // len(piece)):
        sketch.feed(piece)
    sketch.result()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_minimum_change_ignores_a_few_lines() -> None:
    lines = [b"line %d" % n for n in range(1000)]
    life = Life(trigger(dataset={"url": "http://f/x", "minimumChange": 0.3}))
    life.see(made(lines))
    life.see(made([*lines, b"one more"]))
    assert life.fired == 0
    life.see(made(lines[:400]))
    assert life.fired == 1
