"""What each held-out record got: the rows of evaluation/records.jsonl, from which every metric and verdict is made.

    {"record": 3, "digest": "9f0c...", "source": "runbook", "type": "command", "loss": 12.5, "tokens": 9, "right": 7,
     "exactMatch": 1, "commandAccuracy": 1, "answer": "kubectl get pods"}

A row has what was asked for. The digest is that of the record's tokens: rows of two models are compared only where these agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainyard.trainer.data.store import Sequences
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.evaluation.gates import Column

VERSION = 2
"""Raised when the same model would get other scores on the same records than before."""
SUMS = {"loss": ("loss", "tokens"), "perplexity": ("loss", "tokens"), "tokenAccuracy": ("right", "tokens")}
GROUPED_BY = ("source", "type")
MOST_GROUPS = 20
"""Of sources, and of types; the smaller ones are taken together."""
REST = "(others)"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Scores:
    """The rows of one model."""

    rows: Sequence[Row]

    def columns(self, metrics: Iterable[str]) -> dict[str, Column]:
        """Each metric over all records."""
        return {metric: self._column(metric) for metric in metrics}

    def values(self, metrics: Iterable[str]) -> dict[str, float]:
        """Each metric that any record tells about."""
        found = {metric: column.value(metric) for metric, column in self.columns(metrics).items()}
        return {metric: value for metric, value in found.items() if value is not None}

    def groups(self, metrics: Sequence[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """The same by source and by type, the largest groups first, each with its number of records."""
        result: dict[str, dict[str, dict[str, Any]]] = {}
        for key in GROUPED_BY:
            members: dict[str, list[Row]] = {}
            for row in self.rows:
                if name := row.get(key):
                    members.setdefault(str(name), []).append(row)
            ordered = sorted(members.items(), key=lambda item: (-len(item[1]), item[0]))
            if rest := [row for _, rows in ordered[MOST_GROUPS:] for row in rows]:
                ordered = [*ordered[:MOST_GROUPS], (REST, rest)]
            if ordered:
                result[key] = {name: {"records": len(r), **Scores(r).values(metrics)} for name, r in ordered}
        return result

    def jsonl(self) -> str:
        """The rows as a file."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)

    @classmethod
    def read(cls, text: str) -> Scores:
        """What `jsonl` wrote."""
        return cls([json.loads(line) for line in text.splitlines()])

    def check_same_records(self, other: Scores, *, told: str) -> None:
        """Raises UserError if these are not scores of the very same records."""
        mine, theirs = ([row["digest"] for row in one.rows] for one in (self, other))
        if mine == theirs:
            return
        differing = sum(a != b for a, b in zip(mine, theirs, strict=False)) + abs(len(mine) - len(theirs))
        raise invalid_data(
            f"the scores of {told} are of other records than those of this run: {differing} of {len(mine)} differ",
            hint="delete the folder evaluations on the cache or checkpoint volume, so that it is measured anew",
        )

    def _column(self, metric: str) -> Column:
        amount, weight = SUMS.get(metric, (metric, None))
        amounts = np.array([float(row.get(amount) or 0.0) for row in self.rows])
        weights = [row.get(weight) if weight else row.get(amount) is not None for row in self.rows]
        return Column(amounts, np.array([float(w or 0.0) for w in weights]))


def digests(sequences: Sequences) -> list[str]:
    """Of each example: its tokens, and which of them count."""
    found = []
    for number in range(len(sequences.starts) - 1):
        ids, counts = sequences.example(number)
        whole = hashlib.sha256(ids.tobytes())
        whole.update(b"" if counts is None else np.asarray(counts, dtype=np.uint8).tobytes())
        found.append(whole.hexdigest()[:16])
    return found
