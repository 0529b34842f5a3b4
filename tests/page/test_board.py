"""Lines and their changes, as readers get them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.page.board import training_run
from tests.unit.controller.fake_clock import FakeClock
from trainyard.controller.page import board as module
from trainyard.controller.page.board import Board, Bundle, TooManyReaders


class Instant(FakeClock):
    """Nobody waits for the pause between two bundles."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def board() -> Board:
    return Board(clock=Instant(), started="7")


async def next_of(bundles: AsyncIterator[Bundle]) -> Bundle:
    return await asyncio.wait_for(anext(bundles), 2)


def names(bundle: Bundle) -> dict[str, Any]:
    return {place[2]: row and row["state"] for place, row in bundle.changed}


async def test_a_reader_hears_of_each_change_once_and_of_the_newest_state_only(board: Board) -> None:
    bundles = board.bundles(board.now)
    first = asyncio.ensure_future(anext(bundles))
    await asyncio.sleep(0)
    board.run_event("ADDED", training_run("one", state="Pending"))
    board.run_event("MODIFIED", training_run("one", state="Training"))
    board.run_event("ADDED", training_run("two"))
    assert names(await first) == {"one": "Training", "two": "Training"}
    board.run_event("DELETED", training_run("two"))
    assert names(await next_of(bundles)) == {"two": None}


async def test_an_event_that_changes_no_line_is_no_news(board: Board) -> None:
    board.run_event(None, training_run("one"))
    before = board.now
    board.run_event("MODIFIED", training_run("one"))
    board.run_event("DELETED", training_run("never-seen"))
    assert board.now == before


async def test_who_was_away_catches_up(board: Board) -> None:
    board.run_event("ADDED", training_run("one"))
    last = board.now
    board.run_event("ADDED", training_run("two"))
    board.run_event("DELETED", training_run("one"))
    assert names(await next_of(board.bundles(last))) == {"one": None, "two": "Training"}


@pytest.mark.parametrize("last", ["6-1", "7-99", "7-x", "nonsense", "7-" + "9" * 40])
async def test_an_id_that_means_nothing_here_says_load_anew(last: str, board: Board) -> None:
    board.run_event("ADDED", training_run("one"))
    bundle = await next_of(board.bundles(last))
    assert bundle.reset
    assert bundle.id == board.now


async def test_who_was_away_for_too_long_loads_anew(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    board.run_event("ADDED", training_run("one"))
    last = board.now
    for number in range(5):
        board.run_event("ADDED", training_run(f"more-{number}"))
    assert (await next_of(board.bundles(last))).reset


async def test_a_slow_reader_is_told_to_load_anew_too(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    bundles = board.bundles(board.now)
    board.run_event("ADDED", training_run("one"))
    await next_of(bundles)
    for number in range(9):
        board.run_event("ADDED", training_run(f"more-{number}"))
    assert (await next_of(bundles)).reset


async def test_there_are_only_so_many_readers_and_one_that_goes_makes_room(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READERS", 1)
    board.run_event("ADDED", training_run("one"))
    first = board.bundles("7-0")
    await next_of(first)
    with pytest.raises(TooManyReaders):
        await next_of(board.bundles("7-0"))
    await first.aclose()  # type: ignore[attr-defined]
    await next_of(board.bundles("7-0"))
