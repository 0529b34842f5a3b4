"""Fixtures of the trainer's tests: a warm parent process, runs, and one run that nothing disturbs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import Run, Zygote, tiny_spec


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    started = Zygote()
    yield started
    started.close()


@pytest.fixture
def new_run(zygote: Zygote, tmp_path: Path) -> Callable[..., Run]:
    """Make a run from changes to the tiny spec."""
    numbers = itertools.count()

    def make(change: Callable[[dict[str, Any]], None] = lambda spec: None, **named: Any) -> Run:
        spec = tiny_spec()
        change(spec)
        return Run(zygote, tmp_path / f"run-{next(numbers)}", spec, **named)

    return make


@pytest.fixture(scope="session")
def undisturbed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The tiny run, trained from beginning to end without interruption."""
    run = Run(zygote, tmp_path_factory.mktemp("undisturbed"), tiny_spec())
    run.run("prepare")
    run.run("train")
    return run
