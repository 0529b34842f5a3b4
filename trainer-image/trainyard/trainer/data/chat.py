"""Conversations as text, and which parts of the text the assistant says, for any chat template.

Templates are programs. Some show a turn differently once the conversation goes on, some refuse a conversation that does not
begin as they like, some begin the assistant's turn for it (`<think>`). So nothing is assumed of them: the text is that of the
whole conversation, and a part of it counts only where two renderings agree on it:

    before   the turns before, with the template asking for an answer: what the model will see
    after    the same with the answer: what the model is to have said
    whole    all turns

Usually `before` begins `after` and `after` begins `whole`; the answer is what lies between. Where they part, the whole
conversation is rendered once more with another answer in the place of this one, which shows where its text stands. What all
of them agree on counts; an answer on whose text they do not agree is left out, and that is counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trainyard.trainer.data.messages import Record, is_learned
from trainyard.trainer.data.tool_calls import with_text_arguments
from trainyard.trainer.data.unshown import Unshown
from trainyard.trainer.errors import UserError, first_line, invalid_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

OURS = ("weight", "train")
"""Fields of a message that are for the trainer and not for the template."""
REWRITTEN = "rewritten"
"""Why an answer does not count: the template shows it, or what comes before it, differently in the whole conversation."""
BEGINNING = "beginningRefused"
"""Why an answer does not count: the template refuses the conversation up to it, so nobody could ask for it."""
SWITCHED_OFF = "switchedOff"
"""Why an answer does not count: its message says so."""
CALL_ALONE = "callNotShown"
"""Why an answer does not count: it is a call of a tool and nothing else, and the template does not show calls."""


_HALF_A_MARK = re.compile(r"[<\[][^>\]\s]*$")


class Refused(Exception):
    """A record that the template or the tokenizer does not take; the message says what it said."""


@dataclass(frozen=True)
class Rendered:
    """A conversation as text."""

    text: str
    spans: list[tuple[int, int]]
    """Where in it the assistant says what is to be learned, in order."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Answers that do not count, by reason."""
    unshown: list[str] = field(default_factory=list)
    """Parts of the conversation that the template passes over."""


class Chat:
    """The chat template of a tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._unshown = Unshown(self._beginning)
        self._text_arguments: bool | None = None
        """Whether the template wants the arguments of a call as text; None until a call is met."""

    def ask(self, messages: Sequence[Record], tools: Any) -> str:
        """The conversation with the template asking for an answer. Raises Refused."""
        return self._render(messages, tools, ask=True)

    def render(self, messages: Sequence[Record], first: int, tools: Any) -> Rendered:
        """The conversation with the answers from message `first` on that are to be learned. Raises Refused."""
        rendered = Rendered(whole := self._render(messages, tools), [])
        rendered.unshown.extend(self._unshown.of(messages, tools, whole))
        for index, message in enumerate(messages):
            if message["role"] != "assistant" or index < first:
                continue
            if not is_learned(message):
                rendered.left_out[SWITCHED_OFF] += 1
            elif self._unshown.is_silent(messages, index, tools, whole):
                rendered.left_out[CALL_ALONE] += 1
            elif isinstance(found := self._span(messages, index, tools, whole), str):
                rendered.left_out[found] += 1
            else:
                rendered.spans.append(found)
        return rendered

    def _span(self, messages: Sequence[Record], index: int, tools: Any, whole: str) -> tuple[int, int] | str:
        """Where the answer of a message stands in the whole, or why it does not count."""
        last = index == len(messages) - 1
        before = self._beginning(messages[:index], tools, ask=True)
        after = whole if last else self._beginning(messages[: index + 1], tools)
        if before is None or after is None:
            return BEGINNING
        if index and whole.startswith(after) and after.startswith(before):
            return len(before), len(after)
        start, end = _agreed(before, whole), _agreed(after, whole)
        if start < len(before):
            # The template begins the answer in another way than it asks for it; what comes before has to be the same.
            context = self._beginning(messages[:index], tools)
            if context is None or not whole.startswith(context) or start < len(context):
                return REWRITTEN
        answer = self._place_of(messages, index, tools, whole)
        if answer is None:
            return (start, end) if end == len(after) and start < end else REWRITTEN
        if end < answer[1]:
            return REWRITTEN
        if end < len(after):
            # Both go on in different ways, perhaps with marks that begin alike: <|end|><|user|>, <|end|><|endoftext|>.
            end = answer[1] + len(_HALF_A_MARK.sub("", whole[answer[1] : end]))
        # Nobody asks for the first message, so its own text is what tells where it begins.
        start = min(start, answer[0]) if index else answer[0]
        return (start, end) if start < end else REWRITTEN

    def _place_of(self, messages: Sequence[Record], index: int, tools: Any, whole: str) -> tuple[int, int] | None:
        """Where the text of an answer stands in the whole; None where it does not show."""
        other = next(c for n in range(0xE000, 0xF8FF) if (c := chr(n)) not in whole)
        changed = [*messages[:index], {**messages[index], "content": other}, *messages[index + 1 :]]
        rendered = self._beginning(changed, tools)
        if rendered is None or rendered == whole:
            return None
        start = _agreed(whole, rendered)
        return start, len(whole) - _agreed(whole[start:][::-1], rendered[start:][::-1])

    def _beginning(self, messages: Sequence[Record], tools: Any, *, ask: bool = False) -> str | None:
        """A part of a conversation; None where the template refuses it, which says nothing about the whole."""
        if not messages:
            return ""
        try:
            return self._render(messages, tools, ask=ask)
        except Refused:
            return None

    def _render(self, messages: Sequence[Record], tools: Any, *, ask: bool = False) -> str:
        shown: list[Record] = [{key: value for key, value in m.items() if key not in OURS} for m in messages]
        if any("tool_calls" in message for message in shown):
            if self._text_arguments is None:
                self._text_arguments = self._wants_text_arguments()
            if self._text_arguments:
                shown = [with_text_arguments(message) for message in shown]
        try:
            return self._template(shown, tools, ask)
        except UserError:
            raise
        except Exception as error:
            import jinja2

            roles = ", ".join(m["role"] for m in messages[:12]) + (", ..." if len(messages) > 12 else "")
            said = first_line(error, 300)
            if not isinstance(error, jinja2.TemplateError):
                said = f"{type(error).__name__}: {said}"
            raise Refused(f"the model's chat template refuses a conversation with the roles {roles}: {said}") from error

    def _wants_text_arguments(self) -> bool:
        """Templates that put arguments together with text, or show an object as Python would, are made for text."""
        name, key = "probe", "trainyard_key"
        call = {"type": "function", "id": "abcdefghi", "function": {"name": name, "arguments": {key: "v"}}}
        asked: list[Record] = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        try:
            return f"{{'{key}'" in self._template(asked, None, False)
        except UserError:
            raise
        except Exception:
            try:
                return f'"{key}"' in self._template([with_text_arguments(m) for m in asked], None, False)
            except Exception:
                return False

    def _template(self, messages: Sequence[Record], tools: Any, ask: bool) -> str:
        import jinja2

        try:
            self._tokenizer.get_chat_template(tools=tools)
        except ValueError as error:
            raise invalid_config(
                f"the model's tokenizer cannot render a conversation: {first_line(error)}",
                hint="use a chat model, or format PromptCompletion with plain text",
            ) from error
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages), tools=tools, tokenize=False, add_generation_prompt=ask
                )
            )
        except jinja2.TemplateSyntaxError as error:
            raise invalid_config(
                f"the model's chat template cannot be read: line {error.lineno}: {error.message}",
                hint="correct chat_template.jinja (or chat_template in tokenizer_config.json) of the model",
            ) from error


def _agreed(one: str, other: str) -> int:
    """Characters that both begin with."""
    least, most = 0, min(len(one), len(other))
    while least < most:
        middle = (least + most + 1) // 2
        if one[least:middle] == other[least:middle]:
            least = middle
        else:
            most = middle - 1
    return least
