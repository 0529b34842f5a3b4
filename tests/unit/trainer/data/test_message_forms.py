"""Conversations in the forms that data sets have them in, and parts of them that a template passes over."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.trainer.data.chat_templates import CHATML
from tests.unit.trainer.data.chats import TOOL, World, called, chat, messages, refused
from trainyard.trainer.data.message_forms import usual

USER = {"role": "user", "content": "rain?"}
DEAF = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content or '' }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template that knows neither tools nor calls nor reasoning."""


def call(**more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}, **more}


FORMS = {
    "sharegpt": (
        [{"from": "human", "value": "rain?"}, {"from": "gpt", "value": "no"}],
        [USER, {"role": "assistant", "content": "no"}],
    ),
    "sharegpt with a call": (
        [
            {"from": "system", "value": "be short", "role": None},
            {"from": "human", "value": "rain?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
            {"from": "observation", "value": "dry"},
            {"from": "gpt", "value": "no"},
        ],
        [
            {"role": "system", "content": "be short"},
            USER,
            {"role": "assistant", "content": "", "tool_calls": [call()]},
            {"role": "tool", "content": "dry"},
            {"role": "assistant", "content": "no"},
        ],
    ),
    "parts of text": (
        [{"role": "user", "content": [{"type": "text", "text": "ra"}, {"type": "text", "text": "in?"}]},
         {"role": "assistant", "content": "no"}],
        [USER, {"role": "assistant", "content": "no"}],
    ),
    "functions, before there were tools": (
        [USER, {"role": "assistant", "content": None,
                "function_call": {"name": "weather", "arguments": '{"city": "Rome"}'}},
         {"role": "function", "name": "weather", "content": "dry"}, {"role": "assistant", "content": "no"}],
        [USER, {"role": "assistant", "content": "", "tool_calls": [call()]},
         {"role": "tool", "content": "dry"}, {"role": "assistant", "content": "no"}],
    ),
    "calls without their frame": (
        [USER, {"role": "assistant", "content": "", "tool_calls": [{"name": "weather", "arguments": {"city": "Rome"}}]}],
        [USER, {"role": "assistant", "content": "", "tool_calls": [call()]}],
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_learned_like_the_usual_one(world: World, form: str) -> None:
    wild, usual_form = FORMS[form]
    expected, _ = world.prepared(messages({"messages": usual_form}))
    assert "⟦" in expected[0]
    assert world.prepared(messages({"messages": wild}))[0] == expected
    assert world.prepared(messages({"messages": json.dumps(wild)}))[0] == expected


def test_conversations_is_the_name_that_sharegpt_has_for_messages(world: World) -> None:
    wild = [{"from": "human", "value": "rain?"}, {"from": "gpt", "value": "no"}]
    expected = world.prepared(messages(chat("rain?", "no")))[0]
    assert world.prepared(messages({"conversations": wild}))[0] == expected
    both = {**chat("rain?", "no"), "conversations": [{"from": "human", "value": "another one"}]}
    assert world.prepared(messages(both))[0] == expected


def test_conversations_in_parquet(world: World) -> None:
    import pyarrow
    import pyarrow.parquet

    turns = [{"from": "human", "value": "rain?", "weight": None}, {"from": "gpt", "value": "no", "weight": 1}]
    table = pyarrow.table({"id": ["a"], "conversations": [turns]})
    pyarrow.parquet.write_table(table, world.claim / "chats.parquet")
    texts, _ = world.prepared({"name": "d", "format": "Messages", "storageUri": "pvc://m/chats.parquet"})
    assert texts == world.prepared(messages(chat("rain?", "no")))[0]


def test_a_preference_in_sharegpt(world: World) -> None:
    record = {
        "prompt": [{"from": "human", "value": "rain?"}],
        "chosen": [{"from": "gpt", "value": "no"}],
        "rejected": [{"from": "gpt", "value": "user"}],
    }
    data = {"name": "d", "format": "Preference", "inline": {"records": [record]}}
    texts, _ = world.prepared(data, method="DPO")
    assert [text.partition("⟦")[2] for text in texts] == ["no<|im_end|>\n⟧", "user<|im_end|>\n⟧"]


@pytest.mark.parametrize(
    ("tool_call", "said"),
    [
        (
            {"function": {"name": "w", "arguments": '{"a": '}},
            '.function.arguments: expected an object, or one as JSON in a text, found "{\\"a\\": "',
        ),
        (
            {"function": {"name": "w", "arguments": [1]}},
            ".function.arguments: expected an object, or one as JSON in a text, found [1]",
        ),
        ({"name": "w", "arguments": "7"}, ".arguments: expected an object, or one as JSON in a text, found 7"),
        ({"function": {"arguments": {}}}, ".function.name: expected the name of a tool, found null"),
        ({"function": "w"}, '.function: expected an object with name and arguments, found "w"'),
    ],
)
def test_a_call_that_is_none_is_told_with_its_place(world: World, tool_call: Any, said: str) -> None:
    answer = {"role": "assistant", "content": "", "tool_calls": [tool_call]}
    error = refused(world, messages({"messages": [USER, answer]}))
    assert f"dataset d:1: field messages[1].tool_calls[0]{said}" in str(error)


def test_no_arguments_at_all_are_an_empty_object(world: World) -> None:
    assert world.prepared(messages(called("")))[0] == world.prepared(messages(called({})))[0]


def test_parts_that_are_no_text_are_refused(world: World) -> None:
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    error = refused(world, messages({"messages": [{"role": "user", "content": parts}]}))
    assert "field messages[0].content: expected parts that are text, which is what is learned, found [" in str(error)


@pytest.mark.parametrize("value", ["text", 7, None, [], {"content": "a"}, {"from": 3, "value": "a"}, {"from": "human"}])
def test_what_is_in_no_known_form_stays_as_it_is(value: Any) -> None:
    assert usual(value) == value


class TestTemplatesThatPassOverSomething:
    def test_an_answer_that_is_a_call_alone_does_not_count(
        self,
        world: World,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        record = called({"city": "Rome"})
        record["messages"] += [{"role": "tool", "content": "dry"}, {"role": "assistant", "content": "no"}]
        texts, manifest = world.prepared(messages({**record, "tools": [TOOL]}), template=DEAF)
        assert texts == ["<|user|>rain?<|end|><|assistant|><|end|><|tool|>dry<|end|><|assistant|>⟦no<|end|>⟧"]
        split = manifest["splits"]["train"]
        assert split["answersLeftOut"] == {"callNotShown": 1}
        assert split["notShown"] == {"toolCalls": 1, "tools": 1}
        told = capsys.readouterr().out
        assert "train: 1 answers do not count: they are calls of tools, which the chat template does not show" in told
        assert "train: 1 records have descriptions of tools, which the model's chat template does not show" in told

    def test_nothing_but_calls(self, world: World) -> None:
        error = refused(world, messages(called({"city": "Rome"})), template=DEAF)
        assert (
            "all 1 training records are without an answer that counts; 1 answers do not count: they are calls"
            in str(error)
        )
        assert error.hint == "use a base whose chat template shows calls of tools"

    def test_reasoning_is_told_where_it_does_not_show(
        self,
        world: World,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        record = chat("rain?", "no")
        record["messages"][1]["reasoning_content"] = "it is dry"
        texts, manifest = world.prepared(messages(record, chat("rain?", "no")), template=DEAF)
        assert texts == ["<|user|>rain?<|end|><|assistant|>⟦no<|end|>⟧"] * 2
        assert manifest["splits"]["train"]["notShown"] == {"reasoning": 1}
        assert (
            "train: 1 records have reasoning, which the model's chat template does not show" in capsys.readouterr().out
        )

    def test_a_template_that_shows_all_of_it_is_not_spoken_of(self, world: World) -> None:
        thinking = DEAF.replace("{{ m.content", "{{ m.reasoning_content or '' }}{{ m.content")
        record = chat("rain?", "no")
        record["messages"][1]["reasoning_content"] = "it is dry"
        assert world.prepared(messages(record), template=thinking)[1]["splits"]["train"]["notShown"] == {}
        told = world.prepared(messages(called({"city": "Rome"})), template=CHATML.template())[1]["splits"]["train"]
        assert (told["notShown"], told["answersLeftOut"]) == ({}, {})
