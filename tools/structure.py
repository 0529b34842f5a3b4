"""How the house stands: circles of imports between files, files at the trainer's root, lengths of functions.

An import counts wherever it stands: at the top, inside a function, or for the type checker alone. Two files that need each
other are one file or want a third, and an import inside a function only hides that. `make lint` fails above the bounds; the
median is printed to be compared.
"""

import ast
import statistics
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (ROOT / "operator/trainyard", ROOT / "trainer-image/trainyard")
TRAINER = ROOT / "trainer-image/trainyard/trainer"
FILES_AT_TRAINERS_ROOT = 14
LINES_OF_A_FUNCTION = 120

Arrows = Mapping[str, set[str]]
"""Each module, and those that it imports."""


@dataclass(frozen=True)
class Module:
    """One file. `package` is where its relative imports begin."""

    name: str
    package: str
    tree: ast.Module


@dataclass(frozen=True)
class Function:
    """A function, and its length from `def` to its last line."""

    name: str
    lines: int


def read(folders: Iterable[Path]) -> list[Module]:
    """All modules of packages. A package may lie in several folders of the same name."""
    return [_module(path, folder.parent) for folder in folders for path in sorted(folder.rglob("*.py"))]


def _module(path: Path, source: Path) -> Module:
    package = ".".join(path.parent.relative_to(source).parts)
    name = package if path.stem == "__init__" else f"{package}.{path.stem}"
    return Module(name, package, ast.parse(path.read_text(), str(path)))


def arrows(modules: Iterable[Module]) -> Arrows:
    """Who imports whom among these modules; what comes from elsewhere is left out."""
    by_name = {module.name: module for module in modules}
    return {
        name: {found for found in _imports(module, by_name) if found in by_name} for name, module in by_name.items()
    }


def _imports(module: Module, known: Collection[str]) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.package.split(".")[: None if node.level < 2 else 1 - node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            # `from a.b import c` is the module a.b.c where there is one, and else something that a.b has.
            inner = (f"{origin}.{alias.name}" for alias in node.names)
            yield from (name if name in known else origin for name in inner)


def circles(arrows: Arrows) -> list[list[str]]:
    """A shortest circle of each knot of files that all reach each other, its first file again at the end."""
    reached = {file: _reached(arrows, file) for file in arrows}
    knots = {frozenset(other for other in reached[file] if file in reached[other]) for file in arrows} - {frozenset()}
    return sorted(_shortest(arrows, min(knot)) for knot in knots)


def _reached(arrows: Arrows, file: str) -> set[str]:
    found: set[str] = set()
    waiting = [file]
    while waiting:
        new = arrows[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _shortest(arrows: Arrows, file: str) -> list[str]:
    ways, seen = [[file]], {file}
    for way in ways:
        if file in arrows[way[-1]]:
            return [*way, file]
        new = sorted(arrows[way[-1]] - seen)
        seen |= {*new}
        ways += [[*way, following] for following in new]
    raise AssertionError(f"{file} is in no circle")


def functions(modules: Iterable[Module]) -> list[Function]:
    """All functions and methods, those inside of others too."""
    return [
        Function(f"{module.name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def main() -> int:
    modules = read(SOURCES)
    found = circles(arrows(modules))
    at_root = len(list(TRAINER.glob("*.py")))
    lengths = functions(modules)
    longest = max(lengths, key=lambda function: function.lines)
    too_long = [function for function in lengths if function.lines > LINES_OF_A_FUNCTION]
    print(
        f"{len(modules)} files, {len(found)} circles of imports", *(" -> ".join(circle) for circle in found), sep="\n  "
    )
    print(f"{at_root} files at the trainer's root, at most {FILES_AT_TRAINERS_ROOT}")
    print(
        f"{len(lengths)} functions, median {statistics.median(f.lines for f in lengths):g} lines, longest {longest.lines} "
        f"({longest.name}), at most {LINES_OF_A_FUNCTION}",
        *(f"{function.name}: {function.lines} lines" for function in too_long),
        sep="\n  ",
    )
    return 1 if found or too_long or at_root > FILES_AT_TRAINERS_ROOT else 0


if __name__ == "__main__":
    sys.exit(main())
