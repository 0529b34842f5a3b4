"""Asking the operator to change the champion: an annotation of the run, with a new value for each time it is asked."""

from datetime import UTC, datetime

from trainyard.api import GROUP

PROMOTE_ANNOTATION = f"{GROUP}/promote"
ROLLBACK_ANNOTATION = f"{GROUP}/rollback"


def request_value() -> str:
    """Never the same twice."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
