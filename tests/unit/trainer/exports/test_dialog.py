"""A chat template as Ollama's: what Ollama will render is what the model's own template renders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import jinja2
import pytest

from tests.unit.trainer.data.chat_templates import BARE, CHATML, HEADERS, INST, NAMED, TURNS, Structure
from trainyard.trainer.exports.ollama_api.dialog import Render, dialog_of

SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nBe kind"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONVERSATIONS = (
    [("user", "Hi")],
    [("system", 'Say "no" to \\ and {{ }}'), ("user", "Hi – ü\n\nthere")],
    [("user", "Hi"), ("assistant", "Yes?"), ("user", "More")],
    [("system", "S"), ("user", "Hi"), ("assistant", "Yes?"), ("user", "More"), ("assistant", "So"), ("user", "End")],
)


def renderer(template: str) -> Render:
    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    plain = re.sub(r"{%-? *(end)?generation *-?%}", "", template)
    compiled = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(plain)

    def render(messages: Sequence[Any], ask: bool) -> str:
        return compiled.render(messages=messages, add_generation_prompt=ask, raise_exception=refuse)

    return render


def turns(conversation: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in conversation]


def executed(template: str, messages: list[dict[str, str]], system: str) -> str:
    """What Go makes of such a template, by following the few words that we write."""
    if system and messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    head, body, tail = re.fullmatch(
        r"\{\{- range \$i, \$m := \.Messages \}\}(?:\{\{- if and \(eq \$i 0\) \(ne \.Role \"system\"\) \}\}(.*?)\{\{- end \}\})?"
        r"(\{\{- if eq .*)\{\{- end \}\}\{\{- end \}\}(.*)",
        template,
        re.S,
    ).groups()  # type: ignore[union-attr]
    cases = dict(re.findall(r"\{\{- (?:else )?if eq \.Role \"(\w+)\" \}\}(.*?)(?=\{\{- else|$)", body, re.S))
    text = written(head or "") if messages[0]["role"] != "system" else ""
    for message in messages:
        before, after = cases[message["role"]].split("{{ .Content }}")
        text += written(before) + message["content"] + written(after)
    return text + written(tail)


def written(literal: str) -> str:
    import json

    return json.loads(literal[3:-3]) if literal else ""


@pytest.mark.parametrize(
    ("template", "system"),
    [
        (CHATML.template(), ""),
        (HEADERS.template(), ""),
        (INST.template(), ""),
        (TURNS.template(), ""),
        (BARE.template(), ""),
        (NAMED.template(), ""),
        (SMOLLM, "Be kind"),
    ],
    ids=["chatml", "headers", "inst", "turns", "bare", "named", "default-system"],
)
def test_what_ollama_will_render_is_what_the_template_renders(template: str, system: str) -> None:
    render = renderer(template)
    dialog = dialog_of(render)
    assert dialog is not None
    assert dialog.default_system == system
    for conversation in CONVERSATIONS:
        messages = turns(conversation)
        try:
            wanted = render(messages, True)
        except jinja2.TemplateError:
            continue  # a structure that knows no system turn
        assert dialog.render(messages) == wanted
        assert executed(dialog.template(), messages, dialog.default_system) == wanted


def test_a_default_that_is_no_system_turn_stands_in_the_template() -> None:
    template = "{% if messages[0].role != 'system' %}[no rules]{% endif %}" + CHATML.template()
    dialog = dialog_of(renderer(template))
    assert dialog is not None
    assert (dialog.default_system, dialog.without_system) == ("", "[no rules]")
    assert executed(dialog.template(), turns([("user", "Hi")]), "") == renderer(template)(turns([("user", "Hi")]), True)


def test_a_token_that_the_server_adds_is_taken_out() -> None:
    dialog = dialog_of(renderer(Structure(start="<s>").template()))
    assert dialog is not None
    assert dialog.render(turns([("user", "Hi")])).startswith("<s>")
    for conversation in CONVERSATIONS[:2]:
        assert dialog.without("<s>").render(turns(conversation)).startswith("<|im_start|>")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}<{{ loop.index }}>{{ m.content }}{% endfor %}",
        "{% for m in messages %}{{ m.content | upper }}{% endfor %}",
        "{{ raise_exception('never') }}",
        "{% for m in messages %}{% if loop.index0 % 4 == 3 %}!{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}",
    ],
    ids=["numbers", "other-text", "refuses", "not-the-same-each-time"],
)
def test_a_template_that_does_more_is_not_guessed_at(template: str) -> None:
    assert dialog_of(renderer(template)) is None
