"""Order of the tests, and who may run beside whom.

What answers in a second comes first, what needs a cluster and minutes last: a failure in a pure function shows before the
machine has trained anything.

`make test` has two workers, because most tests against the cluster wait. Tests that share fixtures go to the same worker:
those of a file, and of all files with `xdist_group` of one name, which are never side by side (the only GPU node can be
given out, or taken away, once at a time). A test marked `alone` measures time or kills what others need: it begins when
nothing else runs, and nothing else begins before it has ended.
"""

import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any-machine", deadline=None)  # how long one example takes says how busy the machine is
settings.load_profile("any-machine")

TIERS = ("slow", "api", "e2e", "alone", "load")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by the dearest marker of each test, the groups (they are long) first; then say what goes to one worker."""

    def tier(item: pytest.Item) -> int:
        return max((TIERS.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in TIERS), default=0)

    items.sort(key=lambda item: (tier(item), item.get_closest_marker("xdist_group") is None))
    for item in items:
        if (group := company(item)) is not None:
            item.add_marker(pytest.mark.xdist_group(group))


def company(item: pytest.Item) -> str | None:
    """The group of a test that names none. Tests against the cluster have a namespace each, unless they share it."""
    if item.get_closest_marker("alone"):
        return "alone"
    if item.get_closest_marker("xdist_group") or (
        any(item.get_closest_marker(mark) for mark in ("api", "e2e"))
        and "wide_space" not in getattr(item, "fixturenames", ())
    ):
        return None
    return item.nodeid.partition("::")[0]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of everything: a test's time limit does not count while it waits for its turn."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return (yield)
    lock = Path(tempfile.gettempdir(), f"trainyard-tests-{run}")
    with turn(lock, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@contextmanager
def turn(lock: Path, *, alone: bool) -> Iterator[None]:
    """Share the lock, or have it alone. All queue at a gate, so that who wants to be alone is not overtaken for ever."""
    with open(f"{lock}.gate", "w") as gate, open(f"{lock}.lock", "w") as inside:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(inside, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
