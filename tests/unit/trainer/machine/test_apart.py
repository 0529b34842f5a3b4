"""Work in a process of its own: what comes back, what is raised, and a process that the kernel ends."""

from __future__ import annotations

import os
import signal

import pytest

from trainyard.trainer.errors import UserError, invalid_config
from trainyard.trainer.machine.apart import apart


def refuse(name: str) -> None:
    raise invalid_config(f"{name} is wrong", hint="correct it")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_it_has_a_process_of_its_own() -> None:
    assert apart(os.getpid) != os.getpid()


def test_a_fault_comes_back_with_its_way_out() -> None:
    with pytest.raises(UserError) as caught:
        apart(refuse, "spec.x")
    own = invalid_config("spec.x is wrong", hint="correct it")
    assert (str(caught.value), caught.value.exit_code) == (str(own), own.exit_code)


def test_a_process_that_is_killed_is_one_that_had_too_little_memory() -> None:
    with pytest.raises(MemoryError, match="the process of die was killed"):
        apart(die)
