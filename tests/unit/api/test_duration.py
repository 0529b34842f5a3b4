"""Spans of time as people read them."""

from trainyard.api.duration import duration


def test_a_span_is_told_in_its_two_largest_units() -> None:
    assert [duration(s) for s in (0, 42, 300, 12_600, 200_000)] == ["0s", "42s", "5m0s", "3h30m", "2d7h"]
    assert duration(59.6) == "1m0s"
    assert duration(None) == "?"
