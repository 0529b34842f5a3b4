"""Order of the tests, and who may run beside whom.

What answers in a second comes first, what needs a cluster and minutes last: a failure in a pure function shows before the
machine has trained anything.

`make test` has two workers, because most tests against the cluster wait. What goes to which worker is decided here, by the
test's file: tests that share fixtures stay together, and so do all that need the only GPU node or take it away. The tests
in ALONE measure time or kill what others need: each begins when nothing else runs, and nothing else begins before it has
ended.
"""

import fcntl
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("any-machine", deadline=None)  # how long one example takes says how busy the machine is
settings.load_profile("any-machine")

TIERS = ("slow", "api", "e2e", "load")
GPU_NODE = ("test_continuity", "test_injected", "test_node_lost", "test_preempted", "test_schedules")
ALONE = ("test_operator_killed", "test_page", "test_quick_path", "test_time")
SHARING = ("test_admission", "test_wrong_manifests")
"""Tests against the cluster have a namespace of their own each, but for these."""


def company(nodeid: str) -> str:
    """The tests of one answer go to one worker, one after the other."""
    path = Path(nodeid.partition("::")[0])
    for name, files in (("the GPU node", GPU_NODE), ("alone", ALONE)):
        if path.parent.name == "e2e" and path.stem in files:
            return name
    return nodeid if path.parent.name in ("api", "e2e") and path.stem not in SHARING else str(path)


class Companies(LoadScopeScheduling):
    """xdist's scheduler, told what belongs together. (Its own groups are lost with pytest 9.)"""

    def _split_scope(self, nodeid: str) -> str:
        return company(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Companies:
    config.option.loadscopereorder = False  # the order below is meant
    return Companies(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by the dearest marker of each test; then long companies first, and at the very end who wants to be alone."""

    def place(item: pytest.Item) -> tuple[int, int]:
        marks = [TIERS.index(mark.name) + 1 for mark in item.iter_markers() if mark.name in TIERS]
        long = company(item.nodeid) == "the GPU node" or item.path.stem in SHARING
        return max(marks, default=0), -1 if long else company(item.nodeid) == "alone"

    items.sort(key=place)
    lonely = [
        i.nodeid for i in items if "wide_space" in getattr(i, "fixturenames", ()) and company(i.nodeid) == i.nodeid
    ]
    if lonely:
        raise pytest.UsageError(f"these share a namespace, so their files belong in SHARING of {__file__}: {lonely}")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Outside of everything: a test's time limit does not count while it waits for its turn."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
    if run is None:
        return (yield)
    with turn(Path(tempfile.gettempdir(), f"trainyard-tests-{run}"), alone=company(item.nodeid) == "alone"):
        return (yield)


@contextmanager
def turn(lock: Path, *, alone: bool) -> Iterator[None]:
    """Share the lock, or have it alone. All queue at a gate, so that who wants to be alone is not overtaken for ever."""
    with open(f"{lock}.gate", "w") as gate, open(f"{lock}.lock", "w") as inside:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(inside, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
