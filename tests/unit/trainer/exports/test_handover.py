"""The comparison of two programs' answers: what is let through, and what ends the export with both texts."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from trainyard.trainer.errors import UserError
from trainyard.trainer.exports.handover.answer import Answer, Question
from trainyard.trainer.exports.handover.compare import Bar, compare
from trainyard.trainer.exports.handover.questions import COUNT, questions
from trainyard.trainer.exports.handover.reference import Reference

ASKED = Question(messages=({"role": "user", "content": "Which pods?"},))
OWN = Answer(
    "<u>Which pods?<a>",
    (5, 6, 7),
    "kubectl get pods",
    True,
    prompt_ids=(1, 2, 3),
)
WORDS = {5: "kubectl", 6: " get", 7: " pods", 9: " show", 10: " g", 11: "et"}


class Words:
    """A tokenizer of a few words."""

    bos_token = ""

    def decode(self, ids: tuple[int, ...]) -> str:
        return "".join(WORDS[number] for number in ids)


@dataclass
class Undecided:
    """Stands for the model's logits: which tokens are as good, at each place."""

    at: tuple[set[int], ...] = (set(), set(), set(), set())

    def undecided(self, answer: Answer) -> list[frozenset[int]]:
        return [frozenset(found) | {own} for found, own in zip(self.at, (*answer.ids, END), strict=True)]


END = 2
EXACT, LOOSE = Bar("local: m-f16.gguf", exact=True), Bar("local: m-Q4_K_M.gguf", exact=False)


def reference(own: Answer = OWN, *close: set[int], bos: str = "") -> Reference:
    tokenizer: Any = Words()
    tokenizer.bos_token = bos
    rounding: Any = Undecided(close) if close else Undecided()
    return Reference([ASKED], [own], tokenizer, frozenset({END}), rounding, 32)


def fault(found: Answer, bar: Bar = EXACT, known: Reference | None = None) -> str:
    with pytest.raises(UserError) as caught:
        compare(known or reference(), [found], bar=bar)
    return str(caught.value)


def test_the_same_answer_agrees_in_full() -> None:
    agreement = compare(reference(), [OWN], bar=EXACT)
    assert (agreement.share, agreement.ties) == (1.0, 0)


def test_another_template_is_told_with_both_texts() -> None:
    message = fault(replace(OWN, prompt="<sys>Be brief<u>Which pods?<a>"), LOOSE)
    assert "renders the chat as '<sys>Be brief<u>Which pods?<a>' instead of '<u>Which pods?<a>'" in message


def test_a_token_that_begins_the_prompt_may_be_left_to_the_program() -> None:
    own = replace(OWN, prompt="<s>" + OWN.prompt)
    assert compare(reference(own, bos="<s>"), [OWN], bar=EXACT).share == 1.0
    assert "renders the chat" in fault(OWN, EXACT, reference(own))


def test_other_tokens_of_the_same_prompt_are_told() -> None:
    assert "cuts 'Which pods?' into other tokens: [8, 3]" in fault(replace(OWN, prompt_ids=(1, 8, 3)), LOOSE)
    assert "makes 2 tokens of a prompt that has 3" in fault(replace(OWN, prompt_ids=None, prompt_count=2), LOOSE)


def test_another_answer_is_told_at_full_precision_and_counted_otherwise() -> None:
    other = replace(OWN, ids=(5, 8, 7), text="kubectl delete pods")
    message = fault(other)
    assert (
        "answers 'Which pods?' with 'kubectl delete pods' instead of 'kubectl get pods' (parts at token 2 of 3)"
        in message
    )
    assert compare(reference(), [other], bar=LOOSE).share == pytest.approx(1 / 3)


def test_tokens_that_are_as_good_are_a_matter_of_rounding() -> None:
    other, close = replace(OWN, ids=(5, 9), text="kubectl show"), reference(OWN, set(), {9}, set(), set())
    agreement = compare(close, [other], bar=EXACT)
    assert (agreement.ties, agreement.equal) == (1, 1)
    assert "instead of" in fault(other, EXACT, reference(OWN, {9}, set(), {9}, set()))


def test_an_end_may_be_a_matter_of_rounding_too() -> None:
    early = replace(OWN, ids=(5, 6), text="kubectl get")
    assert compare(reference(OWN, set(), set(), {END}, set()), [early], bar=EXACT).ties == 1
    assert "with 'kubectl get'" in fault(early)
    late = replace(OWN, ids=(5, 6, 7, 9), text="kubectl get pods show", ended=False)
    assert compare(reference(OWN, set(), set(), set(), {9}), [late], bar=EXACT).ties == 1


def test_a_program_that_tells_no_tokens_may_have_parted_before_the_text_does() -> None:
    """It has said "g", "et" and then another word, where the model itself says " get" as one token."""
    heard = replace(EXACT, hears=Words().decode)
    other = replace(OWN, ids=(5, 6, 9), text="kubectl get show", prompt_ids=None)
    assert compare(reference(OWN, set(), {10}, set(), set()), [other], bar=heard).ties == 1
    assert "instead of" in fault(other, heard, reference(OWN, set(), {9}, set(), set()))
    ended = replace(other, ids=(5, 6), text="kubectl get")
    assert compare(reference(OWN, set(), set(), {END}, set()), [ended], bar=heard).ties == 1
    assert "instead of" in fault(ended, heard, reference(OWN, {END}, {END}, set(), set()))


def test_an_answer_that_does_not_end_is_told_at_any_precision() -> None:
    for bar in (EXACT, LOOSE):
        assert "does not end its answer" in fault(replace(OWN, ended=False), bar)


def test_an_answer_that_goes_on_past_the_end_is_told_at_full_precision() -> None:
    assert "with 'kubectl get pods and'" in fault(
        replace(OWN, ids=(5, 6, 7, 8), text="kubectl get pods and", ended=False)
    )


def test_questions_are_held_out_records_first_and_each_once(tmp_path: Path) -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    for split, texts in {"eval": ["a", "a", "b"], "train": ["c", "d"]}.items():
        (tmp_path / split).mkdir()
        lines = [
            json.dumps({"messages": [turn("system", "S"), turn("user", t), turn("assistant", "x")]}) for t in texts
        ]
        (tmp_path / split / "set.jsonl").write_text("\n".join(lines))
    found = questions(tmp_path, chat=True)
    assert len(found) == COUNT
    assert [q.shown for q in found][:4] == ["a", "b", "c", "d"]
    assert [m["role"] for m in found[0].messages] == ["system", "user"]
    assert questions(tmp_path, chat=False)[0].text.startswith("S")


def test_turns_with_tools_and_very_long_ones_are_no_questions(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    records = [
        {
            "messages": [
                {"role": "user", "content": "look"},
                call,
                {"role": "tool", "content": "1"},
                {"role": "user", "content": "so?"},
            ]
        },
        {"messages": [{"role": "user", "content": "x" * 5000}]},
        {"text": "one two " * 100},
    ]
    (tmp_path / "train" / "set.jsonl").write_text("\n".join(map(json.dumps, records)))
    found = questions(tmp_path, chat=True)
    assert [m["content"] for m in found[0].messages] == ["look"]
    assert found[1].shown.startswith("one two one")
    assert len(found[1].shown) <= 160
    assert len(found) == COUNT


def test_of_a_text_that_does_not_fit_a_shorter_beginning_is_asked_and_such_a_conversation_not(tmp_path: Path) -> None:
    def fits(question: Question) -> bool:
        return len(question.shown) <= 20

    (tmp_path / "train").mkdir()
    long = " ".join(["word"] * 30)
    record = {"messages": [{"role": "user", "content": long}, {"role": "assistant", "content": "x"}]}
    (tmp_path / "train" / "set.jsonl").write_text(json.dumps(record))
    assert questions(tmp_path, chat=False, fits=fits)[0].text == long[:18]
    assert [q.shown for q in questions(tmp_path, chat=True, fits=fits)] == ["What is 12 + 30?"]
