"""The table of methods, and the rules and texts that are made of it."""

from typing import get_args

import pytest

from trainyard.api.run.methods import (
    METHODS,
    PAIRS,
    REWARDED,
    TEXT,
    TINY,
    acceptable,
    chosen,
    listed,
    none_of,
    one_of,
    sentence,
)
from trainyard.api.run.selection import RecordFormat
from trainyard.trainer.data.convert import target
from trainyard.trainer.models.known_names import CONFIGURATIONS, arguments_of


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.learns.refusal])
def test_the_rule_accepts_exactly_the_formats_that_the_prepare_step_can_make_something_of(method: str) -> None:
    by_rule = acceptable(METHODS[method].learns)
    assert by_rule == [one for one in get_args(RecordFormat) if target(one, None, method) is not None]


def test_the_methods_of_a_kind() -> None:
    assert chosen(lambda method: method.learns is TEXT) == ("Pretrain", "CPT")
    assert chosen(lambda method: method.learns is PAIRS) == ("DPO", "ORPO", "RewardModel")
    packed = set(chosen(lambda method: method.packs))
    assert packed >= {"Pretrain", "CPT", "SFT"}
    assert not packed & {"DPO", "ORPO", "RewardModel", "KTO", "PPO", "TRM"}
    assert (REWARDED, TINY) == (("PPO",), ("TRM",))


def test_what_the_extra_arguments_of_a_method_may_name_is_known() -> None:
    assert {row.configuration for row in METHODS.values()} == {*CONFIGURATIONS, None}
    for method in METHODS.values():
        assert method.configuration is None or "adam_beta1" in arguments_of(method.configuration)


def test_conditions_and_sentences_are_made_for_one_method_and_for_several() -> None:
    assert (one_of(["A"], "self.method"), none_of(["A"])) == ("self.method == 'A'", "method != 'A'")
    assert (one_of(["A", "B"]), none_of(["A", "B"])) == ("method in ['A', 'B']", "!(method in ['A', 'B'])")
    text = "{methods} write{s} {its} own answers"
    assert sentence(["A"], text) == "method A writes its own answers"
    assert sentence(["A", "B", "C"], text) == "methods A, B and C write their own answers"
    assert listed(["A", "B"]) == "A and B"
