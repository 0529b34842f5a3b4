"""What counts as the same command, and what does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainyard.trainer.data.commands import command_of

CALL = '{"name": "run", "arguments": {"command": "df -h", "host": "a"}}'


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kubectl get pods -n prod", "kubectl  get pods   -n prod"),
        ("First look:\n```sh\nkubectl get pods\n```\nThen think.", "```bash\n# all of them\n\n$ kubectl get pods\n```"),
        ("```\ndf -h \\\n  /var\n```", "`df -h /var`"),
        ("Run this:\n$ df -h\nand wait.", "```console\n$ df -h\nFilesystem ...\n```"),
        ("grep 'a b' x", 'grep "a b" x'),
        (f"<tool_call>\n{CALL}\n</tool_call>", f"I will look. [TOOL_CALLS] [{CALL}]"),
        (CALL, '{"name": "run", "parameters": {"host": "a", "command": "df -h"}}'),
        (
            CALL,
            json.dumps(
                {"type": "function", "function": {"name": "run", "arguments": '{"host":"a","command":"df -h"}'}}
            ),
        ),
    ],
)
def test_the_same_in_other_words(one: str, other: str) -> None:
    assert command_of(one) is not None
    assert command_of(one) == command_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("kubectl get pods -n prod", "kubectl get pods -n stage"),
        (CALL, CALL.replace("df -h", "df")),
        (CALL, CALL.replace('"run"', '"walk"')),
        (f"[{CALL}, {CALL}]", CALL),
        ("```sh\ndf\n```\n```sh\ndu\n```", "```sh\ndu\n```"),
        ("grep 'a b' x", "grep a b x"),
    ],
)
def test_another_command(one: str, other: str) -> None:
    assert command_of(one) != command_of(other)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "  \n",
        "It is broken.\nNobody knows why.",
        "```python\nprint(1)\n```\nThat is all.",
        "{}\nnothing\n[]",
        "[1]\n2",
    ],
)
def test_no_command(answer: str) -> None:
    assert command_of(answer) is None


@given(st.text(alphabet=st.sampled_from("{}[]\"'`$\\ \n:,ab"), max_size=400))
@settings(max_examples=300, deadline=None)
def test_whatever_a_model_says_there_is_an_answer(text: str) -> None:
    assert command_of(text) == command_of(text)


def test_braces_without_end_are_given_up() -> None:
    assert command_of(f"{'[' * 100_000}\n{CALL}") is None
