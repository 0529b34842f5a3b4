"""Spans of time for people."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """`3m20s`, `2h05m`, `4d07h`; `?` if unknown."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    minutes, secs = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{secs:02}s" if minutes else f"{secs}s"
