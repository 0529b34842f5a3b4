"""Spans of time for people: in columns, in log lines, in estimates."""


def duration(seconds: float | None) -> str:
    """Like kubectl's ages: 45s, 3m20s, 5h12m, 2d4h. `?` where it is not known."""
    if seconds is None:
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
