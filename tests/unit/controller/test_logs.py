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


def test_what_strangers_cause_is_one_short_line_in_a_while():
    now = [0.0]
    passes = logs.seldom(seconds=10, clock=lambda: now[0])
    told = []
    for _ in range(200):
        made = logging.getLogger("trainyard.test").makeRecord(
            "trainyard.test",
            logging.ERROR,
            "f",
            1,
            "request from %s",
            ("x" * 999,),
            (ValueError, ValueError("\x1b[1m"), None),
        )
        if passes(made):
            told.append(made.getMessage())
            assert made.exc_info is None
        now[0] += 0.125
    assert len(told) == 3
    assert {len(line) <= 400 for line in told} == {True}
    assert told[1].endswith("(79 more since the last line of this kind)")
