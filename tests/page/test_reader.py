"""Who is let in, and what he sees."""

from ipaddress import ip_network
from typing import Any

import pytest

from tests.page.board import MemoryReviews
from tests.unit.controller.fake_clock import FakeClock
from trainyard.controller.page.reader import EVERYBODY, REMEMBER_SECONDS, SESSION_SECONDS, Doorman, Person, Refused


def doorman(access: Any, *, clock: FakeClock | None = None, **more: Any) -> Doorman:
    return Doorman(access, reviews=MemoryReviews(), clock=clock or FakeClock(), **more)


async def reader(
    door: Doorman, *, session: str = "", bearer: str = "", headers: Any = (), remote: str = "10.0.0.9"
) -> Person:
    return await door.reader(session=session, bearer=bearer, headers=dict(headers), remote=remote)


async def test_open_means_everybody() -> None:
    assert await reader(doorman("Open")) == EVERYBODY


@pytest.mark.parametrize("access", ["Token", "Kubernetes"])
async def test_without_a_token_nobody_is_let_in(access: str) -> None:
    door = doorman(access, token="the-token")
    for bearer in ("", "wrong", "x" * 100_000):
        with pytest.raises(Refused):
            await reader(door, bearer=bearer)
        with pytest.raises(Refused):
            await door.log_in(bearer)
    with pytest.raises(Refused):
        await reader(door, session="made-up")


async def test_an_installation_without_a_token_lets_nobody_in() -> None:
    with pytest.raises(Refused):
        await reader(doorman("Token", token=""), bearer="")


async def test_a_login_holds_for_a_working_day() -> None:
    clock = FakeClock()
    door = doorman("Token", token="the-token", clock=clock)
    session = await door.log_in("the-token\n")
    assert await reader(door, session=session) == EVERYBODY
    await clock.advance(SESSION_SECONDS + 1)
    with pytest.raises(Refused):
        await reader(door, session=session)


async def test_a_person_sees_the_namespaces_in_which_he_may_list_runs() -> None:
    door = doorman("Kubernetes")
    ann, bob = await reader(door, bearer="ann"), await reader(door, bearer="bob")
    assert await door.visible(ann, ["team-a", "team-b"]) == {"team-a"}
    assert await door.visible(bob, ["team-a", "team-b"]) == {"team-a", "team-b"}


async def test_an_answer_about_rights_is_asked_for_once_a_minute() -> None:
    clock, reviews = FakeClock(), MemoryReviews()
    door = Doorman("Kubernetes", reviews=reviews, clock=clock)
    ann = Person("ann", ("team-a",))
    for _ in range(5):
        await door.visible(ann, ["team-a", "team-b"])
    assert reviews.asked == 3
    await clock.advance(REMEMBER_SECONDS + 1)
    await door.visible(ann, ["team-a", "team-b"])
    assert reviews.asked == 6


async def test_a_header_is_believed_from_the_proxy_alone() -> None:
    door = doorman("Header", proxies=[ip_network("10.0.0.0/24")])
    said = {"X-Forwarded-User": "ann", "X-Forwarded-Groups": "team-a, dev"}
    assert await reader(door, headers=said) == Person("ann", ("team-a", "dev"))
    assert await reader(door, headers=said, remote="::ffff:10.0.0.9") == Person("ann", ("team-a", "dev"))
    for headers, remote in ((said, "10.0.1.9"), ({}, "10.0.0.9"), (said, "fd00::1")):
        with pytest.raises(Refused):
            await reader(door, headers=headers, remote=remote)
