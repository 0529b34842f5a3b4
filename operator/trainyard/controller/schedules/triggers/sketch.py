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


class Sketch:
    """Takes a file piece by piece."""

    def __init__(self) -> None:
        self._whole = hashlib.sha256()
        self._smallest: list[int] = []  # a max-heap, as negative numbers
        self._members: set[int] = set()
        self._rest = b""
        self.size = 0
        """Bytes so far."""
        self.lines = 0
        """Complete lines so far."""

    def feed(self, chunk: bytes) -> None:
        """The next piece, cut anywhere."""
        self._whole.update(chunk)
        self.size += len(chunk)
        *complete, self._rest = (self._rest + chunk).split(b"\n")
        for line in complete:
            self._add(line)

    def result(self) -> str:
        """`<sha256 of the content>:<hashes>`. The order of lines counts for the digest, not for the sample."""
        if self._rest:
            self._add(self._rest)
            self._rest = b""
        return self._whole.hexdigest() + ":" + "".join(f"{n:0{_WIDTH}x}" for n in sorted(self._members))

    def _add(self, line: bytes) -> None:
        self.lines += 1
        number = int.from_bytes(hashlib.blake2b(line.rstrip(b"\r"), digest_size=_WIDTH // 2).digest(), "big")
        if number in self._members:
            return
        if len(self._smallest) < SAMPLE:
            heapq.heappush(self._smallest, -number)
            self._members.add(number)
        elif number < -self._smallest[0]:
            self._members.discard(-heapq.heapreplace(self._smallest, -number))
            self._members.add(number)


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
