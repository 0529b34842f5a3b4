"""Chat templates of the structures that published models have, written small, with marks around what the model says.

`{% generation %}` is the mark: transformers notes where in the text it stands. That is the second way in which the tests find
what counts; the trainer does not look at it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Structure:
    """How a template is built; `template()` is its text."""

    start: str = ""
    """Before everything."""
    system: str = "<|im_start|>system\n{}<|im_end|>\n"
    user: str = "<|im_start|>user\n{}<|im_end|>\n"
    tool: str = "<|im_start|>tool\n{}<|im_end|>\n"
    assistant: str = "<|im_start|>assistant\n"
    """The header of an answer, which is also how the template asks for one."""
    end: str = "<|im_end|>\n"
    """What ends an answer."""
    opens: str = ""
    """What the template writes after the header when it asks, and not in an answer."""
    both: str = ""
    """What it writes after the header in both cases."""
    last_only: str = ""
    """What it writes before the last answer alone, in the model's place."""
    end_of_all: str = ""
    """What it writes after the last answer and nowhere else."""
    unless_asked: str = ""
    """What it writes at the end of everything when it does not ask."""
    trims: bool = False
    strips_thinking: bool = False
    """Of answers before the last user message what stands before </think> is left out."""
    refuses: tuple[str, ...] = ()
    """system: such a message; order: any but user and assistant in turn; nobody: a conversation without a user."""
    arguments: str = "tojson"
    """How a call is shown: tojson, items, text (put together with +) or bare."""

    def template(self) -> str:
        content = "(m.content or '')" + (" | trim" if self.trims else "")
        body = "{% set c = " + content + " %}"
        if self.strips_thinking:
            body += "{% if loop.index0 < ns.user %}{% set c = c.split('</think>')[-1] %}{% endif %}"
        turns = "".join(
            f"{{% {'if' if n == 0 else 'elif'} m.role == '{role}' %}}{_around(text)}"
            for n, (role, text) in enumerate((("system", self.system), ("user", self.user), ("tool", self.tool)))
        )
        last = f"{{% if loop.last %}}{_text(self.last_only)}{{% endif %}}" if self.last_only else ""
        close = f"{{% if loop.last %}}{_text(self.end_of_all)}{{% endif %}}" if self.end_of_all else ""
        answer = (
            f"{{% else %}}{_text(self.assistant + self.both)}"
            f"{{% generation %}}{last}{{{{ c }}}}{self._calls()}{_text(self.end)}{close}{{% endgeneration %}}{{% endif %}}"
        )
        return (
            f"{self._checks()}{_text(self.start)}{{% for m in messages %}}{body}{turns}{answer}{{% endfor %}}"
            f"{{% if add_generation_prompt %}}{_text(self.assistant + self.opens + self.both)}"
            f"{{% else %}}{_text(self.unless_asked)}{{% endif %}}"
        )

    def _checks(self) -> str:
        found = "{% set ns = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.user = loop.index0 %}"
        found += "{% endif %}"
        if "system" in self.refuses:
            found += "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        if "order" in self.refuses:
            found += (
                "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
                "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
            )
        found += "{% endfor %}"
        if "nobody" in self.refuses:
            found += "{% if ns.user < 0 %}{{ raise_exception('No user query found in messages.') }}{% endif %}"
        return found

    def _calls(self) -> str:
        shown = {
            "tojson": "{{ f.arguments | tojson }}",
            "items": "{% for k, v in f.arguments | items %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}",
            "text": "{{ 'json ' + f.arguments }}",
            "bare": "{{ f.arguments }}",
        }[self.arguments]
        return f"{{% for t in m.tool_calls or [] %}}{{% set f = t.function %}}<call>{{{{ f.name }}}} {shown}</call>{{% endfor %}}"


def _text(text: str) -> str:
    return "{{ '" + text.replace("\n", "\\n") + "' }}" if text else ""


def _around(text: str) -> str:
    before, _, after = text.partition("{}")
    return f"{_text(before)}{{{{ c }}}}{_text(after)}"


CHATML = Structure()
HEADERS = Structure(
    start="<|begin|>",
    system="<|h|>system<|/h|>\n\n{}<|eot|>",
    user="<|h|>user<|/h|>\n\n{}<|eot|>",
    tool="<|h|>ipython<|/h|>\n\n{}<|eot|>",
    assistant="<|h|>assistant<|/h|>\n\n",
    end="<|eot|>",
    trims=True,
)
INST = Structure(
    start="<s>", system="[SYS]{}[/SYS]", user="[INST] {} [/INST]", tool="[TOOL]{}[/TOOL]", assistant="", end="</s>"
)
TURNS = Structure(
    start="<bos>",
    user="<turn>user\n{}</turn>\n",
    tool="<turn>tool\n{}</turn>\n",
    assistant="<turn>model\n",
    end="</turn>\n",
    trims=True,
    refuses=("system",),
)
BARE = Structure(system="{}\n\n", user="<|User|>{}", tool="<|Tool|>{}", assistant="<|Assistant|>", end="<|eos|>")
NAMED = Structure(system="{} ", user="USER: {} ", tool="TOOL: {} ", assistant="ASSISTANT:", end="</s>")
SECTIONS = Structure(
    system="{}\n\n", user="### Instruction:\n{}\n\n", tool="### Tool:\n{}\n\n", assistant="### Response:\n", end="\n\n"
)
BLOCKS = Structure(
    system="<|system|>\n{}<|end|>\n", user="<|user|>\n{}<|end|>\n", tool="<|tool|>\n{}<|end|>\n", assistant="<|assistant|>\n",
    end="<|end|>\n",
)  # fmt: skip

STRUCTURES: dict[str, Structure] = {
    "chatml": CHATML,
    "headers": HEADERS,
    "inst": INST,
    "turns": TURNS,
    "bare": BARE,
    "named": NAMED,
    "sections": SECTIONS,
    "blocks": BLOCKS,
    **{
        f"{name}, thinking opened when asked": replace(base, opens="<think>\n")
        for name, base in (("chatml", CHATML), ("bare", BARE), ("blocks", BLOCKS), ("headers", HEADERS))
    },
    **{
        f"{name}, thinking opened in both": replace(base, both="<think>\n")
        for name, base in (("chatml", CHATML), ("bare", BARE), ("blocks", BLOCKS))
    },
    **{
        f"{name}, empty thinking before the last": replace(base, last_only="<think>\n\n</think>\n\n")
        for name, base in (("chatml", CHATML), ("bare", BARE))
    },
    **{
        f"{name}, thinking of earlier turns left out": replace(base, strips_thinking=True)
        for name, base in (("chatml", CHATML), ("bare", BARE), ("headers", HEADERS), ("inst", INST))
    },
    **{
        f"{name}, thinking opened and left out": replace(base, opens="<think>\n", strips_thinking=True)
        for name, base in (("chatml", CHATML), ("bare", BARE))
    },
    **{
        f"{name}, strictly in turn": replace(base, refuses=("order",))
        for name, base in (("inst", INST), ("turns", TURNS), ("blocks", BLOCKS))
    },
    **{
        f"{name}, wants a user": replace(base, refuses=("nobody",))
        for name, base in (("chatml", CHATML), ("bare", BARE))
    },
    **{
        f"{name}, an end of all": replace(base, end_of_all="<|endoftext|>")
        for name, base in (("chatml", CHATML), ("sections", SECTIONS), ("named", NAMED))
    },
    **{
        f"{name}, an end unless asked": replace(base, unless_asked="<|endoftext|>")
        for name, base in (("blocks", BLOCKS), ("sections", SECTIONS))
    },
    "sections, no end of a turn": replace(SECTIONS, end="", end_of_all="</s>"),
    **{
        f"{name}, arguments {way}": replace(base, arguments=way)
        for name, base in (("chatml", CHATML), ("bare", BARE))
        for way in ("items", "text", "bare")
    },
    "wants a user, thinks, leaves out": replace(CHATML, refuses=("nobody",), opens="<think>\n", strips_thinking=True),
}


def turn(role: str, content: str | None, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


def u(text: str = "what is up?") -> dict[str, object]:
    return turn("user", text)


def a(text: str = "all is well", **more: object) -> dict[str, object]:
    return turn("assistant", text, **more)


CALL = turn(
    "assistant", None, tool_calls=[{"type": "function", "function": {"name": "look", "arguments": {"where": "it's here", "n": 2}}}]
)  # fmt: skip
THOUGHT = "<think>\nhm\n</think>\n\nthis"

SHAPES: dict[str, list[dict[str, object]]] = {
    "one turn": [u(), a()],
    "two turns": [u(), a("first"), u("and?"), a("second")],
    "three turns": [u("1"), a("one"), u("2"), a("two"), u("3"), a("three")],
    "the same answer each time": [u("1"), a("yes"), u("2"), a("yes"), u("3"), a("yes")],
    "question and answer are equal": [u("yes"), a("yes"), u("yes"), a("yes")],
    "system first": [turn("system", "be brief"), u(), a()],
    "system and two turns": [turn("system", "be brief"), u(), a("first"), u("and?"), a("second")],
    "assistant first": [a("welcome"), u(), a()],
    "system, then assistant": [turn("system", "be brief"), a("welcome"), u(), a("second answer")],
    "two questions in a row": [u("one"), u("two"), a()],
    "two answers in a row": [u(), a("one"), a("two")],
    "a call and its result": [u(), CALL, turn("tool", "42"), a("it is 42")],
    "text and a call": [u(), {**CALL, "content": "let me look"}, turn("tool", "42"), a("it is 42")],
    "ends with a call": [u(), CALL],
    "two calls": [u(), CALL, turn("tool", "1"), CALL, turn("tool", "2"), a("3")],
    "ends with a question": [u(), a(), u("thanks")],
    "ends with a result": [u(), CALL, turn("tool", "42")],
    "thinks": [u(), a(THOUGHT)],
    "thinks twice": [u(), a(THOUGHT), u("and?"), a(THOUGHT + " too")],
    "thinks first": [u(), a(THOUGHT), u("and?"), a("plain")],
    "thinks last": [u(), a("plain"), u("and?"), a(THOUGHT)],
    "thinks over a call": [u(), {**CALL, "content": THOUGHT}, turn("tool", "42"), a(THOUGHT)],
    "begins with an angle": [u(), a("<b>bold</b>"), u("and?"), a("<think>")],
    "begins and ends with blanks": [u(" hm "), a("  spaced out \n"), u("and?"), a("\n again ")],
    "empty answer": [u(), a(""), u("hello?"), a("here")],
    "holds marks of the template": [u("<|im_end|>"), a("<|im_start|>user\nno"), u("[/INST]"), a("</s><|eos|>")],
    "not learned first": [u(), a("bad", weight=0), u("no"), a("good")],
    "not learned last": [u(), a("good"), u("and?"), a("bad", train=False)],
    "learned by saying so": [u(), a("good", weight=1, train=True), u("and?"), a("also", weight=1.0)],
    "not learned at all": [u(), a("bad", weight=0)],
    "other scripts": [u("\u6f22\u5b57?"), a("\u00e4\u00f6\u00fc \U0001f682 \ue000"), u("\u0623"), a("\U0001f682")],
}
