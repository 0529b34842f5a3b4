"""The page in a real Chromium: what people see and do."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.page.board import MemoryReviews, Stage, curve, example, training_run
from tests.page.browser import PROGRAM, Tab, browser
from trainyard.controller.clock import SystemClock
from trainyard.controller.page.reader import Doorman

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="no Chromium here: apt-get install chromium"),
]
ROWS = "document.querySelectorAll('tbody tr').length"
PICTURES = os.environ.get("TRAINYARD_PICTURES", "")
"""A folder for screenshots, for people to look at."""


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with (await example()).served() as served:
        yield served


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    async with browser() as program, program.tab() as opened:
        await opened.size(1280, 900)
        yield opened
        assert opened.faults == []


def url(stage: Stage, path: str = "/") -> str:
    return f"http://127.0.0.1:{stage.port}{path}"


async def test_the_list_tells_of_each_run_and_follows(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 4")
    text = await tab.run("document.body.innerText")
    assert "held by team-a/agent-sre-7, which has about 3m20s left" in text
    stage.put(training_run("brand-new"))
    await tab.until(f"{ROWS} === 5")
    stage.put(training_run("brand-new", state="Succeeded", step=100))
    await tab.until("document.querySelector('tr[data-run=\"team-a/brand-new\"] .state').innerText === 'Succeeded'")
    stage.delete(training_run("brand-new"))
    await tab.until(f"{ROWS} === 4")


async def test_filters_stand_in_the_address_and_come_back_with_it(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 4")
    await tab.key("/")
    assert await tab.run("document.activeElement.type") == "search"
    for letter in "sre":
        await tab.key(letter)
    await tab.until(f"{ROWS} === 2")  # the run itself, and the one that waits for it
    assert await tab.run("location.search") == "?q=sre"
    await tab.open(url(stage, "/?namespace=lab&state=Failed"))
    await tab.until(f"{ROWS} === 1")
    assert "quickstart" in await tab.run("document.querySelector('tbody').innerText")


async def test_a_run_shows_curves_with_what_happened_gates_exports_and_what_to_type(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 4")
    await tab.run("document.querySelector('a[href=\"/runs/team-a/agent-sre-7\"]').click()")
    await tab.until("document.querySelectorAll('canvas').length === 3")
    text = await tab.run("document.body.innerText")
    for words in (
        "Promote",
        "0.3600 to 0.5400",
        "s3://models/agent-sre/7",
        "trainyard stop -n team-a agent-sre-7",
        "restart (60)",
    ):
        assert words in text, words
    assert "hidden-in-the-spec" not in await tab.run("document.documentElement.outerHTML")
    await tab.run("history.back()")
    await tab.until(f"{ROWS} === 4")


async def test_a_step_is_on_the_screen_in_less_than_two_seconds(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage, "/runs/team-a/agent-sre-7"))
    await tab.until(
        "document.querySelectorAll('canvas').length === 3 && document.getElementById('link').dataset.state === 'live'"
    )
    for step in (73, 74, 75):
        begun = asyncio.get_running_loop().time()
        before = await tab.run("document.querySelector('canvas').toDataURL()")
        await stage.history.add("uid-team-a-agent-sre-7", curve(80)[step])
        deadline = begun + 2
        while await tab.run("document.querySelector('canvas').toDataURL()") == before:
            assert asyncio.get_running_loop().time() < deadline


async def test_a_failed_run_says_why_and_what_to_do(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage, "/runs/lab/quickstart"))
    await tab.until("document.querySelector('[role=alert]') !== null")
    alert = await tab.run("document.querySelector('[role=alert]').innerText")
    assert "line 7 has no messages" in alert
    assert "correct line 7, or set onInvalid: Skip" in alert


async def test_what_an_author_writes_is_text_and_nothing_else(stage: Stage, tab: Tab) -> None:
    stage.put(training_run("odd", message="<img src=x onerror='document.title=\"taken\"'><b>bold</b>"))
    await tab.open(url(stage, "/?q=odd"))
    await tab.until(f"{ROWS} === 1")
    assert "<b>bold</b>" in await tab.run("document.querySelector('td.why').innerText")
    assert await tab.run("document.querySelectorAll('main img, main b').length") == 0


async def test_the_operator_may_restart(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 4 && document.getElementById('link').dataset.state === 'live'")
    stage.board._started = "2"  # ids of another process
    stage.put(training_run("made-meanwhile"))
    await tab.run("dispatchEvent(new Event('pagehide')); document.dispatchEvent(new Event('visibilitychange'))")
    await tab.until(f"{ROWS} === 5")


async def test_runs_are_compared_over_one_axis(stage: Stage, tab: Tab) -> None:
    for point in curve(50):
        await stage.history.add("uid-lab-trm-monthly-20261101", point)
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 4")
    for name in ("team-a/agent-sre-7", "lab/trm-monthly-20261101"):
        await tab.run(f"document.querySelector('tr[data-run=\"{name}\"] input').click()")
    await tab.run("[...document.querySelectorAll('button')].find((b) => b.innerText === 'Compare').click()")
    await tab.until("document.querySelectorAll('canvas').length === 1")
    assert "metric=loss" in await tab.run("location.search")
    assert await tab.run("document.querySelectorAll('table:not(.u-legend) tbody tr').length") == 2


async def test_curves_take_the_colours_of_the_theme_that_the_system_changes_to(stage: Stage, tab: Tab) -> None:
    drawn = "document.querySelector('canvas').toDataURL()"
    await tab.dark(False)
    await tab.open(url(stage, "/runs/team-a/agent-sre-7"))
    await tab.until("document.querySelectorAll('canvas').length === 3")
    light = await tab.run(drawn)
    await tab.dark(True)
    await tab.until(f"{drawn} !== {light!r}")
    await tab.dark(False)
    await tab.until(f"{drawn} === {light!r}")


async def test_a_schedule_says_when_it_starts_next(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage, "/schedules"))
    await tab.until(f"{ROWS} === 1")
    await tab.run("document.querySelector('td.name a').click()")
    await tab.until("document.querySelector('h1')?.innerText.startsWith('trm-monthly')")
    assert "Last success" not in await tab.run("document.body.innerText")


async def test_a_sweep_ranks_its_trials_and_plots_them(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage, "/sweeps"))
    await tab.until(f"{ROWS} === 1")
    await tab.run("document.querySelector('td.name a').click()")
    await tab.until(f"{ROWS} === 3")
    assert await tab.run("document.querySelector('tbody a').innerText") == "tune-1"
    assert await tab.run("document.querySelectorAll('.dots circle').length") == 2
    assert "hidden-in-the-spec" not in await tab.run("document.documentElement.outerHTML")


async def test_a_thousand_runs_are_there_at_once_and_move_without_a_freeze(stage: Stage, tab: Tab) -> None:
    for number in range(1000):
        stage.put(training_run(f"run-{number:04}", step=number % 100))
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 1004")
    await tab.run(
        "window.longest = 0; new PerformanceObserver((list) => list.getEntries().forEach((entry) => "
        "{ longest = Math.max(longest, entry.duration) })).observe({ type: 'longtask' })"
    )
    for number in range(1000):
        stage.put(training_run(f"run-{number:04}", step=(number + 1) % 100))
    await tab.until("document.querySelector('tr[data-run=\"team-a/run-0998\"]').innerText.includes('99%')")
    longest = await tab.run("new Promise((done) => setTimeout(() => done(longest), 300))")
    print(f"longest task {longest:.0f} ms")


async def test_nothing_is_asked_of_another_host(stage: Stage, tab: Tab) -> None:
    for path in ("/", "/runs/team-a/agent-sre-7", "/schedules", "/compare?runs=team-a/agent-sre-7,lab/quickstart"):
        await tab.open(url(stage, path))
        await tab.until("document.getElementById('view').innerText.length > 40")
    assert {request.split("/")[2] for request in tab.requests if not request.startswith("data:")} == {
        f"127.0.0.1:{stage.port}"
    }


async def test_the_keyboard_reaches_everything(stage: Stage, tab: Tab) -> None:
    await tab.open(url(stage))
    await tab.until(f"{ROWS} === 4")
    await tab.run("document.body.focus()")
    await tab.key("j")
    first = await tab.run("document.activeElement.innerText")
    await tab.key("j")
    assert await tab.run("document.activeElement.innerText") != first
    await tab.key("k")
    assert await tab.run("document.activeElement.innerText") == first
    await tab.run("document.activeElement.click()")
    await tab.until(f"document.querySelector('h1')?.innerText.startsWith({first!r})")
    assert await tab.run("document.activeElement.id") == "view"


async def test_where_a_token_is_needed_it_is_asked_for(tab: Tab) -> None:
    doorman = Doorman("Token", reviews=MemoryReviews(), clock=SystemClock(), token="the-token")
    async with Stage(doorman).served() as stage:
        stage.put(training_run("mine"))
        await tab.open(url(stage))
        await tab.until("document.getElementById('token') !== null")
        await tab.run("document.getElementById('token').value = 'the-token'; document.querySelector('form').submit()")
        await tab.until(f"{ROWS} === 1")
        tab.faults.clear()  # Chromium logs each 401


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [560, 1280, 3840])
async def test_no_view_is_wider_than_the_window(width: int, dark: bool, stage: Stage, tab: Tab) -> None:
    await tab.size(width, 1000)
    await tab.dark(dark)
    for path in (
        "/",
        "/runs/team-a/agent-sre-7",
        "/schedules",
        "/schedules/lab/trm-monthly",
        "/sweeps",
        "/sweeps/lab/tune",
    ):
        await tab.open(url(stage, path))
        await tab.until("document.getElementById('link').dataset.state === 'live'")
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth"), path
        paper = await tab.run("getComputedStyle(document.body).backgroundColor")
        assert (paper != "rgb(255, 255, 255)") is dark
        if PICTURES:
            name = path.strip("/").replace("/", "-") or "list"
            await asyncio.to_thread(
                save, Path(PICTURES) / f"{name}-{width}-{'dark' if dark else 'light'}.png", await tab.picture()
            )


def save(file: Path, data: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
