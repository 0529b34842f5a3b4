"""The count of circles, files and lines, on packages made up for it."""

from pathlib import Path

import pytest

import structure

LONG = "def long():\n" + "    x = 1\n" * structure.LINES_OF_A_FUNCTION


def package(folder: Path, **files: str) -> Path:
    """A package `yard`; `a__b` is its file a/b.py."""
    for name, text in files.items():
        path = folder / "yard" / f"{name.replace('__', '/', 1)}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "yard"


def circles(*folders: Path) -> list[str]:
    return [" ".join(circle) for circle in structure.circles(structure.arrows(structure.read(folders)))]


@pytest.mark.parametrize(
    "back",
    [
        "from yard.a import x",
        "from yard import a",
        "import yard.a",
        "import yard.a as other",
        "from . import a",
        "from .a import x",
        "def f():\n    from yard.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from yard.a import x",
    ],
)
def test_an_import_counts_wherever_and_however_it_is_written(tmp_path: Path, back: str) -> None:
    assert circles(package(tmp_path, a="from yard.b import y", b=back)) == ["yard.a yard.b yard.a"]


def test_imports_in_one_direction_are_no_circle(tmp_path: Path) -> None:
    assert circles(package(tmp_path, a="from yard import b, c", b="from yard import c", c="import ast, yard")) == []


def test_the_shortest_way_round_is_shown_once_for_each_knot(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        a="from yard import b, c",
        b="from yard import c",
        c="from yard import a",
        d="from yard import a, e",
        e="from yard import d",
    )
    assert circles(made) == ["yard.a yard.c yard.a", "yard.d yard.e yard.d"]


def test_a_package_may_lie_in_several_folders(tmp_path: Path) -> None:
    one = package(tmp_path / "one", left__a="from yard.right.b import y")
    two = package(tmp_path / "two", right__b="from yard.left.a import x")
    assert circles(one, two) == ["yard.left.a yard.right.b yard.left.a"]


def test_a_name_that_a_package_itself_has_leads_to_its_init(tmp_path: Path) -> None:
    made = package(
        tmp_path,
        inner____init__="from .deep import x\nNAME = 1",
        inner__deep="from ..inner import y\nfrom . import NAME",
    )
    assert circles(made) == ["yard.inner yard.inner.deep yard.inner"]


def test_the_length_of_a_function_goes_from_its_def_to_its_last_line(tmp_path: Path) -> None:
    made = package(
        tmp_path, a="@property\ndef f(\n    x,\n):\n    return x\n\n\nclass C:\n    async def g(self): ...\n"
    )
    found = structure.functions(structure.read([made]))
    assert [(f.name, f.lines) for f in found] == [("yard.a.f", 4), ("yard.a.g", 1)]


@pytest.mark.parametrize(
    ("files", "code", "line"),
    [
        ({"a": "def f(): ..."}, 0, "1 files, 0 circles of imports"),
        ({"a": "def f(): ...\nimport yard.a"}, 1, "  yard.a -> yard.a"),
        ({"a": LONG}, 1, "  yard.a.long: 121 lines"),
        (
            {"a": LONG.replace("    x = 1\n", "", 1)},
            0,
            "1 functions, median 120 lines, longest 120 (yard.a.long), at most 120",
        ),
        ({f"f{i}": "def f(): ..." for i in range(15)}, 1, "15 files at the trainer's root, at most 14"),
        ({f"f{i}": "def f(): ..." for i in range(14)}, 0, "14 files at the trainer's root, at most 14"),
    ],
)
def test_it_says_what_it_found_and_fails_above_the_bounds(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    code: int,
    line: str,
) -> None:
    made = package(tmp_path, **files)
    monkeypatch.setattr(structure, "SOURCES", (made,))
    monkeypatch.setattr(structure, "TRAINER", made)
    assert structure.main() == code
    assert line in capsys.readouterr().out.splitlines()
