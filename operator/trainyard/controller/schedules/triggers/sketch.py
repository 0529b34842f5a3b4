"""How much of a file of lines has changed, from two short texts instead of two files.

A sketch is the sample of the smallest hashes of the distinct lines (a bottom-k MinHash). Of the k smallest hashes of two
files taken together, the share that occurs in both estimates the share of lines that both have (Broder 1997); with k =
256 the standard error is at most 1/(2·√256), about 0.03.
"""

import hashlib
import heapq

SAMPLE = 256
_WIDTH = 12
"""Hex digits of each hash: 48 bits, so that the sampled lines of a huge file hardly ever collide."""
_SOME = 64 * 2**10


class Sketch:
    """Takes a file piece by piece."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._smallest: list[int] = []  # a max-heap, as negative numbers
        self._members: set[int] = set()
        self._open = _Line()
        self.size = 0
        """Bytes so far."""
        self.lines = 0
        """Complete lines so far."""

    def feed(self, chunk: bytes) -> None:
        """The next piece, cut anywhere."""
        self._whole.update(chunk)
        self.size += len(chunk)
        first, *others = chunk.split(b"\n")
        self._open.extend(first)
        if others:
            self._add(self._open.number())
            for line in others[:-1]:
                self._add(_number(_hasher(line.rstrip(b"\r"))))
            self._open = _Line()
            self._open.extend(others[-1])

    def result(self) -> str:
        """`<sha256 of the content>:<hashes>`. The order of lines counts for the digest, not for the sample."""
        if self._open.begun:
            self._add(self._open.number())
            self._open = _Line()
        return self._whole.hexdigest() + ":" + "".join(f"{n:0{_WIDTH}x}" for n in sorted(self._members))

    def _add(self, number: int) -> None:
        self.lines += 1
        if number in self._members:
            return
        if len(self._smallest) < SAMPLE:
            heapq.heappush(self._smallest, -number)
            self._members.add(number)
        elif number < -self._smallest[0]:
            self._members.discard(-heapq.heapreplace(self._smallest, -number))
            self._members.add(number)


class _Line:
    """A line that comes in pieces. It is hashed and not kept, for nobody says how long it will be."""

    def __init__(self) -> None:
        self.begun = False
        self._hash = _hasher()
        self._returns = 0
        """Carriage returns at its end so far: they belong to the line only if something follows."""

    def extend(self, piece: bytes) -> None:
        """More of it."""
        self.begun = self.begun or bool(piece)
        text = piece.rstrip(b"\r")
        if text:
            while self._returns:
                some = min(self._returns, _SOME)
                self._hash.update(b"\r" * some)
                self._returns -= some
            self._hash.update(text)
        self._returns += len(piece) - len(text)

    def number(self) -> int:
        """Its hash."""
        return _number(self._hash)


def _hasher(data: bytes = b"") -> "hashlib.blake2b":
    return hashlib.blake2b(data, digest_size=_WIDTH // 2)


def _number(line: "hashlib.blake2b") -> int:
    return int.from_bytes(line.digest(), "big")


def changed_share(before: str, after: str) -> float:
    """Estimated share of lines, of both files together, that are not in both: 0 to 1."""
    one, other = _hashes(before), _hashes(after)
    together = sorted(one | other)[:SAMPLE]
    if not together:
        return 0.0
    return 1 - sum(1 for h in together if h in one and h in other) / len(together)


def _hashes(text: str) -> set[str]:
    _, _, sample = text.partition(":")
    return {sample[i : i + _WIDTH] for i in range(0, len(sample), _WIDTH)}
