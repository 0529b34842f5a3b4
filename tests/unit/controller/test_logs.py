"""Log lines: as JSON for machines, as text for people."""

import json
import logging
import sys

from trainyard.controller import logs


def formatted(formatter: logging.Formatter, message: str, *args, extra: dict | None = None, error: bool = False) -> str:
    logger = logging.getLogger("trainyard.test")
    trace = None
    if error:
        try:
            raise KeyError("missing")
        except KeyError:
            trace = sys.exc_info()
    return formatter.format(
        logger.makeRecord("trainyard.test", logging.INFO, "f", 1, message, args, trace, extra=extra)
    )


def test_a_json_line_has_the_run_and_the_callers_fields():
    with logs.about(namespace="ns", run="alpha"):
        line = json.loads(formatted(logs.JsonFormatter(), "job %s made", "a-1", extra={"job": "a-1"}))
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "trainyard.test",
        "message": "job a-1 made",
        "namespace": "ns",
        "run": "alpha",
        "job": "a-1",
    }
    assert "run" not in json.loads(formatted(logs.JsonFormatter(), "later"))


def test_a_traceback_stays_in_its_line():
    line = formatted(logs.JsonFormatter(), "failed", error=True)
    assert "\n" not in line
    assert "KeyError: 'missing'" in json.loads(line)["exception"]


def test_text_is_for_people():
    line = formatted(logs.TextFormatter(), "job made", extra={"run": "alpha"})
    assert line.endswith("INFO    job made  run=alpha")
