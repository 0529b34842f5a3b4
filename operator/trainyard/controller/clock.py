"""Time as a dependency.

Everything that waits, backs off or expires asks a `Clock`, so that a test moves five minutes ahead in no time.
Wall time is for what people and other programs read (timestamps); monotonic time is for durations, because wall time
can jump.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget it; harmless when it has fired already."""


class Clock(Protocol):
    """What the operator may know about time."""

    def now(self) -> datetime:
        """Wall time, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds from some fixed point; never goes back."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call back in the event loop once `monotonic()` has reached `when`."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class SystemClock:
    """The real clock; to be used inside a running event loop."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def rfc3339(moment: datetime) -> str:
    """As Kubernetes writes times: whole seconds, UTC, `Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(moment: datetime) -> str:
    """A Kubernetes MicroTime, as Leases want it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
