"""A text of any origin becomes one printable line of bounded length."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainyard.api.texts import one_line


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training on arcanine", "training on arcanine"),
        ("Zürich → 東京", "Zürich → 東京"),
        ("\x1b[31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("line\r\nline\tand\x00more\n", "line line and more"),
        ("left\u202eright \ud800 end", "left right end"),
        ("a" * 21, "a" * 19 + "…"),
    ],
)
def test_what_a_terminal_or_a_log_would_obey_is_gone(text: str, expected: str) -> None:
    assert one_line(text, limit=20 if len(text) == 21 else 80) == expected


@given(st.text(st.characters(codec=None), max_size=300), st.integers(1, 40))
def test_any_text_is_printable_and_bounded(text: str, limit: int) -> None:
    line = one_line(text, limit=limit)
    assert len(line) <= limit
    assert line.isprintable()


def test_a_text_of_megabytes_costs_no_more_than_what_is_kept_of_it() -> None:
    assert len(one_line("\n" * 50_000_000 + "end", limit=100)) <= 100
