"""The page of reported situations names a test for each, and each of them is there."""

import re

from tests import ROOT

PAGE = (ROOT / "docs/use/reported.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|.*\| (`[^`]+`|—) \|$", PAGE, re.MULTILINE)
UNTESTED = {2, 21, 51, 52}
"""Each goes from here with its test."""


def test_every_situation_has_a_row() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 54))


def test_every_row_names_a_test_that_is_there() -> None:
    missing = []
    assert {int(number) for number, test in ROWS if test == "—"} == UNTESTED
    for number, test in ROWS:
        if test == "—":
            continue
        file, _, name = test.strip("`").partition("::")
        path = ROOT / file
        if not path.is_file() or (name and f"def {name}(" not in path.read_text()):
            missing.append((number, test))
    assert not missing
