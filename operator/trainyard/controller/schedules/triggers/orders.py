"""What the operator and its fork server say to each other: take a look, end it, it has ended.

Each is one datagram. The ask and the answer of a look are not among them; those go over a pipe of the look's own.
"""

import json
from dataclasses import asdict, dataclass

SIZE = 4096
"""Bytes of the longest."""
GRACE_SECONDS = 5.0
"""A process that outlives its own timer by so much is killed."""
OUT_OF_MEMORY = 3
"""Exit code of a look that had no memory left."""


@dataclass(frozen=True)
class Order:
    """Make a process for a look; the pipe comes along."""

    number: int
    kind: str
    seconds: float
    cpu_seconds: int
    memory: int
    """Bytes of data, beyond what the process is forked with."""

    def sent(self) -> bytes:
        """As a datagram."""
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True)
class Stop:
    """End the look of this number."""

    number: int

    def sent(self) -> bytes:
        """As a datagram."""
        return json.dumps(asdict(self)).encode()


def received(data: bytes) -> Order | Stop:
    """As the fork server reads it."""
    body = json.loads(data)
    return Order(**body) if "kind" in body else Stop(**body)


@dataclass(frozen=True)
class End:
    """How a look's process ended."""

    number: int
    status: int = 0
    """As `wait` gives it."""
    late: bool = False
    """It was killed, because its time was over."""
    failed: str = ""
    """It was never made, and why."""
    cpu_seconds: float = 0.0
    peak_kib: int = 0

    def sent(self) -> bytes:
        """As a datagram."""
        return json.dumps(asdict(self)).encode()[:SIZE]

    @classmethod
    def received(cls, data: bytes) -> "End":
        """As the operator reads it."""
        return cls(**json.loads(data))
