"""The newest progress of each run, in memory.

Nothing here is authoritative: after a restart the store is empty until the pods report again, which they do every few
seconds. Records may arrive late, twice or out of order; a record only counts when it is newer than the one held.
"""

from collections import OrderedDict
from enum import StrEnum

from trainyard.api.progress import ProgressRecord, merged_metrics
from trainyard.api.steps import STEPS, base_of

_PLACES = {name: place for place, name in enumerate(STEPS)}
"""In a run; the trainings of phases stand where the one training stands."""
KEPT = 10_000
"""Runs whose progress, and forgotten runs whose uid, is kept; far more than can be active at a time."""


class Accepted(StrEnum):
    """What became of a record."""

    NEW = "new"
    """It was taken, and a state of things changed: another step, attempt or phase, or a new checkpoint."""
    UPDATED = "updated"
    """It was taken; only numbers moved."""
    OUTDATED = "outdated"
    GONE = "gone"
    """The run has ended or been deleted."""


_REMEMBERED = tuple(ProgressRecord.model_fields.keys() - {"metrics", "message"})

Rank = tuple[int, int, bool, int]


class ProgressStore:
    """Newest record by run uid."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, tuple[Rank, ProgressRecord]] = OrderedDict()
        self._gone: OrderedDict[str, None] = OrderedDict()

    def put(self, record: ProgressRecord, *, native: bool = True) -> Accepted:
        """Take a record if it is the newest of its run.

        Records that are not `native` come from a library's own callback and know less, so within an attempt they never
        replace one of ours.
        """
        uid = record.run_uid
        if uid in self._gone:
            return Accepted.GONE
        held = self._held.get(uid)
        rank = (_place(record.step), record.attempt, native, record.sequence)
        next_phase = held is not None and held[0][0] == rank[0] and held[1].step != record.step
        if held is not None and rank <= held[0] and not next_phase:
            return Accepted.OUTDATED
        if held is not None and held[0][:3] == rank[:3] and not next_phase:
            record = _completed(record, held[1])
        self._held[uid] = (rank, record)
        self._held.move_to_end(uid)
        if len(self._held) > KEPT:
            self._held.popitem(last=False)
        return Accepted.UPDATED if held is not None and _only_numbers(held[1], record) else Accepted.NEW

    def get(self, uid: str) -> ProgressRecord | None:
        """The newest record, if any has come since the operator started."""
        held = self._held.get(uid)
        return None if held is None else held[1]

    def forget(self, uid: str) -> None:
        """The run has ended or is gone: drop what is held and take no more."""
        self._held.pop(uid, None)
        self._gone[uid] = None
        self._gone.move_to_end(uid)
        if len(self._gone) > KEPT:
            self._gone.popitem(last=False)

    def active(self) -> int:
        """Runs that have reported and not ended."""
        return len(self._held)


def is_step(name: str) -> bool:
    """Whether a record may speak of it."""
    return base_of(name) in STEPS


def _place(step: str) -> int:
    return _PLACES[base_of(step)]


def _completed(record: ProgressRecord, earlier: ProgressRecord) -> ProgressRecord:
    """The record with what it leaves out and an earlier one of its attempt said.

    The last report of transformers' callback, for example, names neither step nor number of steps.
    """
    filled = {name: getattr(earlier, name) for name in _REMEMBERED if getattr(record, name) is None}
    return record.model_copy(update={**filled, "metrics": merged_metrics(earlier.metrics, record.metrics)})


def _only_numbers(old: ProgressRecord, new: ProgressRecord) -> bool:
    def place(record: ProgressRecord) -> tuple[object, ...]:
        checkpoint = record.checkpoint.step if record.checkpoint else None
        return record.step, record.attempt, record.phase, checkpoint, record.effective

    return place(old) == place(new)
