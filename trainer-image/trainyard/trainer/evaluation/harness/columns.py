"""What the harness has found, as gates judge it: the score of each record, where these make up the metric that is told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from trainyard.api.run.evaluation import own_name
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.evaluation.gates import PERPLEXITIES, Column
from trainyard.trainer.evaluation.harness.ask import Asked
from trainyard.trainer.evaluation.harness.tasks import PLAIN

LIKELIHOODS = {*PERPLEXITIES, "bits_per_byte"}
"""Metrics whose records have logarithms of likelihoods."""


def columns_of(asked: Asked, metrics: Iterable[str]) -> dict[str, Column]:
    """Those of the metrics that were measured."""
    return {metric: _column(asked, metric) for metric in metrics if metric in asked.metrics}


def check_same_records(asked: Asked, other: Asked, *, told: str) -> None:
    """Raises UserError if the tasks had other records meanwhile."""
    mine, theirs = ([(row["task"], row["filter"], row["record"]) for row in one.rows] for one in (asked, other))
    if mine != theirs:
        raise invalid_data(
            f"spec.evaluation.harness: {told} was asked {len(theirs)} records, the result {len(mine)}, and not the same",
            hint="somebody has changed the folder of includeFrom meanwhile; start the run again",
        )


def _column(asked: Asked, metric: str) -> Column:
    told, own = asked.metrics[metric], own_name(metric)
    task, _, kind = metric.partition("/")
    wanted = kind.partition(".")[2] or PLAIN
    rows = [row for row in asked.rows if row["task"] == task and row["filter"] == wanted]
    scores = [row[own] for row in rows if own in row]
    if scores and len(scores) == len(rows):
        parts = np.array([_parts(own, score) for score in scores])
        column = Column(parts[:, 0], parts[:, 1])
        value = column.value(metric)
        if value is not None and math.isclose(value, told, rel_tol=1e-6, abs_tol=1e-9):
            return column
    # The task puts its records together in another way (a median, bleu), so there is its metric alone.
    whole = math.log(told) if own in PERPLEXITIES and told > 0 else told
    n = max(1, len(rows))
    return Column(np.full(n, whole), np.ones(n), of_records=False)


def _parts(own: str, score: Any) -> tuple[float, float]:
    amount, weight = score if isinstance(score, list) else (score, 1.0)
    if own in LIKELIHOODS:
        amount = -amount / (math.log(2) if own == "bits_per_byte" else 1.0)
    return amount, weight
