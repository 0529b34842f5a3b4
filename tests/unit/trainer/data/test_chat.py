"""What counts in a conversation, over templates and conversations of all structures, found in two ways.

The trainer compares renderings. The test reads the marks that its templates carry around what the model says, and asks of each
answer whether the model would have been shown the same beginning and have been taught the same words.
"""

from __future__ import annotations

from typing import Any

import jinja2
import pytest

from tests.unit.trainer.data.chat_templates import SHAPES, STRUCTURES, Structure
from trainyard.trainer.data.chat import BEGINNING, REWRITTEN, SWITCHED_OFF, Chat, Refused
from trainyard.trainer.data.messages import clean


class Tokenizer:
    """The half of a tokenizer that renders, with transformers' own code."""

    def __init__(self, template: str) -> None:
        self.template = template

    def get_chat_template(self, tools: Any = None) -> str:
        return self.template

    def apply_chat_template(self, messages: Any, *, tools: Any, tokenize: bool, add_generation_prompt: bool) -> str:
        return marked(self.template, messages, add_generation_prompt)[0]


def marked(template: str, messages: Any, ask: bool) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, indices = render_jinja_template(
        conversations=[messages],
        chat_template=template,
        return_assistant_tokens_mask=True,
        add_generation_prompt=ask,
    )
    return texts[0], [tuple(pair) for pair in indices[0]]


def expected(template: str, opens: str, messages: list[dict[str, Any]]) -> tuple[list[str], int, int, int]:
    """The texts that count; how many answers are rewritten, are refused up to them, are switched off."""
    bare = [{k: v for k, v in m.items() if k not in ("weight", "train")} for m in messages]
    whole, spans = marked(template, bare, False)
    found, rewritten, early, off, number = [], 0, 0, 0, -1
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        number += 1
        if message.get("weight") == 0 or message.get("train") is False:
            off += 1
            continue
        start, end = spans[number]
        try:
            part, of_part = marked(template, bare[: index + 1], False)
            asked = marked(template, bare[:index], True)[0] if index else ""
        except jinja2.TemplateError:
            early += 1
            continue
        said, alone = whole[start:end], part[slice(*of_part[number])]
        if index == len(messages) - 1:
            said = alone = whole[start:]
        shown = whole[:start] == part[: of_part[number][0]] and whole.startswith(asked.removesuffix(opens))
        if shown and said and alone.startswith(said):
            # What the template opens for the model, the model does not write.
            found.append(said.removeprefix(opens) if index else said)
        else:
            rewritten += 1
    return found, rewritten, early, off


@pytest.mark.parametrize("name", STRUCTURES)
def test_what_counts_is_what_the_marks_say(name: str) -> None:
    structure = STRUCTURES[name]
    template = structure.template()
    chat = Chat(Tokenizer(template))  # type: ignore[arg-type]
    for shape, raw in SHAPES.items():
        messages = clean(raw)
        as_it_takes = _with_arguments(structure, messages)
        try:
            wanted = expected(template, structure.opens, as_it_takes)
        except jinja2.TemplateError as error:
            with pytest.raises(Refused, match=f"refuses a conversation with the roles .*: {error}"):
                chat.render(messages, 0, None)
            continue
        rendered = chat.render(messages, 0, None)
        counted = [rendered.text[start:end] for start, end in rendered.spans]
        told = (counted, *(rendered.left_out[why] for why in (REWRITTEN, BEGINNING, SWITCHED_OFF)))
        assert told == wanted, (shape, rendered.text)


def _with_arguments(structure: Structure, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The oracle knows which form the template was written for."""
    from trainyard.trainer.data.tool_calls import with_text_arguments

    return [with_text_arguments(m) for m in messages] if structure.arguments in ("text", "bare") else messages


def test_there_are_as_many_structures_and_shapes_as_it_takes() -> None:
    assert len(STRUCTURES) >= 40
    assert len(SHAPES) >= 30
