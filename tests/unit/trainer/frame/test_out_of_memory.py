"""The ladder: what is given up when the device is full, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from trainyard.api.run.training import Training
from trainyard.trainer.frame.out_of_memory import Reductions, one_rung_down, recall, remember, smaller_evaluation


def ladder(training: Training, *, eight_bit: bool = False) -> list[Training]:
    reductions: Reductions | None = Reductions(training, training)
    found = []
    while reductions is not None:
        found.append(reductions.settings)
        reductions = one_rung_down(reductions, step=0, eight_bit=eight_bit)
    return found


def test_half_the_batch_and_twice_the_accumulation_then_checkpointing() -> None:
    rungs = ladder(Training(per_device_train_batch_size=8, gradient_accumulation_steps=2))
    assert [
        (r.per_device_train_batch_size, r.gradient_accumulation_steps, r.gradient_checkpointing) for r in rungs
    ] == [(8, 2, False), (4, 4, False), (2, 8, False), (1, 16, False), (1, 16, True)]


def test_an_eight_bit_optimizer_is_the_last_rung_where_there_is_one() -> None:
    training = Training(per_device_train_batch_size=1, gradient_checkpointing=True)
    assert [r.optim for r in ladder(training, eight_bit=True)] == ["adamw_torch", "adamw_bnb_8bit"]
    assert len(ladder(training.model_copy(update={"optim": "adafactor"}), eight_bit=True)) == 1


@given(st.integers(1, 65536), st.integers(1, 65536))
def test_the_effective_batch_never_changes_and_there_is_an_end(batch: int, accumulation: int) -> None:
    rungs = ladder(Training(per_device_train_batch_size=batch, gradient_accumulation_steps=accumulation))
    assert {r.per_device_train_batch_size * r.gradient_accumulation_steps for r in rungs} == {batch * accumulation}
    assert len(rungs) <= batch.bit_length() + 1
    assert rungs[-1].per_device_train_batch_size == 1


def test_what_was_given_up_is_remembered_for_these_settings_alone(tmp_path: Path) -> None:
    wanted = Training(per_device_train_batch_size=8)
    assert recall(tmp_path, wanted) == Reductions(wanted, wanted)
    once = one_rung_down(Reductions(wanted, wanted), step=17, eight_bit=False)
    assert once is not None
    twice = smaller_evaluation(once, 4, step=20)
    remember(tmp_path, twice)
    assert recall(tmp_path, wanted) == twice
    assert twice.noted() == {
        "outOfMemoryReductions": "batch 4 x 2 instead of 8 x 1, from step 17 on; evaluation in batches of 4, from step 20 on"
    }
    other = Training(per_device_train_batch_size=4)
    assert recall(tmp_path, other) == Reductions(other, other), "somebody has changed the spec"
    faster = wanted.model_copy(update={"learning_rate": 0.1})
    assert recall(tmp_path, faster).settings.learning_rate == 0.1, "only the five settings are remembered"
    (tmp_path / "memory.json").write_text("{")
    assert recall(tmp_path, wanted).taken == ()
