"""Examples from source files: purpose, signature, configuration key, dependency.

Python is read with its own parser; of C# the documentation comments and using lines, which a few rules read without one;
YAML and JSON as data. Nothing is executed.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from trainyard.trainer.data.generate.example import Example, by_content

MOST_LINES = 60
LEAST_LINES = 4
KEYS_A_FILE = 4
FUNCTIONS_A_FILE = 8
_NO_PURPOSE = re.compile(r"^(todo|fixme|deprecated|see |same as|test|\W*$)", re.I)
_SECRET = re.compile(r"pass|secret|token|key|credential|auth|cert", re.I)

Made = tuple[str, str, tuple[str, ...]]


class CodeMaker:
    """Files one by one."""

    kind = "code"

    def __init__(self, tasks: frozenset[str]) -> None:
        self._tasks = tasks

    def add(self, record: dict[str, Any]) -> Iterator[Example]:
        """Examples from one file."""
        text, path = record.get("text"), str(record.get("path") or "")
        if not isinstance(text, str) or "\x00" in text:
            return
        language = str(record.get("language") or "").lower()
        found: list[tuple[str, Made]] = []
        if language in ("python", "py") or path.endswith(".py"):
            found = list(_python(text, path, self._tasks))
        elif language in ("csharp", "c#", "cs") or path.endswith(".cs"):
            found = list(_csharp(text, path, self._tasks))
        elif path.endswith((".yaml", ".yml", ".json")) and "CodeConfigKey" in self._tasks:
            found = [("CodeConfigKey", made) for made in config_keys(text, path)]
        repository = str(record.get("repository") or "")
        query = f"{repository}:{path}" if repository else path
        for task, (problem, solution, steps) in found:
            yield Example(task, problem, solution, steps, "code", query, "code_understanding")

    def end(self) -> Iterator[Example]:
        """Nothing is held back."""
        return iter(())


def _python(text: str, path: str, tasks: frozenset[str]) -> Iterator[tuple[str, Made]]:
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.splitlines()
    if "CodeDependency" in tasks and (made := dependencies(module, lines, path)) is not None:
        yield "CodeDependency", made
    if not tasks & {"CodePurpose", "CodeSignature"}:
        return
    functions = [
        node
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("test")
    ]
    for node in functions[:FUNCTIONS_A_FILE]:
        if "CodePurpose" in tasks and (made := purpose(node, lines, path)) is not None:
            yield "CodePurpose", made
        if "CodeSignature" in tasks and (made := signature(node, lines, path)) is not None:
            yield "CodeSignature", made


def dependencies(module: ast.Module, lines: list[str], path: str) -> Made | None:
    """Top-level packages that a file imports, wherever in it."""
    if not LEAST_LINES <= len(lines) <= 2 * MOST_LINES:
        return None
    found: dict[str, int] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            found.setdefault(name.partition(".")[0], node.lineno)
    if not found:
        return None
    problem = (
        f"{path}:\n{chr(10).join(lines)}\n\nWhich packages does this file import? Give the top-level names in alphabetical order, "
        "without relative imports."
    )
    steps = tuple(
        f"{name} is imported in line {line}." for name, line in sorted(found.items(), key=lambda i: (i[1], i[0]))
    )
    return problem, ", ".join(sorted(found)), steps


def purpose(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str], path: str) -> Made | None:
    """What a function is for, in the words of its own docstring; the function is shown without it."""
    words = first_sentence(ast.get_docstring(node) or "")
    if words is None:
        return None
    documentation = node.body[0]
    start, end = node.lineno, node.end_lineno or node.lineno
    shown = [*lines[start - 1 : documentation.lineno - 1], *lines[documentation.end_lineno or start : end]]
    # A docstring that shares a line with code cannot be cut out by lines.
    if not LEAST_LINES <= len(shown) <= MOST_LINES or len(node.body) < 2 or documentation.lineno == start:
        return None
    source = textwrap.dedent("\n".join(shown))
    if words.lower().rstrip(".") in source.lower():
        return None
    problem = f"{path}, function {node.name}:\n{source}\n\nSay in one sentence what this function does."
    steps = (f"The function {node.name} takes {_count(len(_parameters(node)), 'parameter')}.",)
    return problem, words, steps


def first_sentence(documentation: str) -> str | None:
    """The first sentence of a docstring; None for one that says nothing about what the thing does."""
    paragraph = " ".join(documentation.strip().split("\n\n")[0].split())
    match = re.match(r"(.+?[.!?])(?:\s|$)", paragraph)
    sentence = (match[1] if match else paragraph).strip()
    if _NO_PURPOSE.match(sentence) or not 4 <= len(sentence.split()) <= 40 or ">>>" in sentence or ":param" in sentence:
        return None
    return sentence


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str], path: str) -> Made | None:
    """Names of the parameters, and which of them may be left out."""
    parameters = _parameters(node)
    if len(parameters) < 2:
        return None
    start, end = node.lineno, node.end_lineno or node.lineno
    shown = lines[start - 1 : end]
    if not 2 <= len(shown) <= MOST_LINES:
        return None
    optional = [name for name, has_default in parameters if has_default]
    problem = (
        f"{path}, function {node.name}:\n{textwrap.dedent(chr(10).join(shown))}\n\nWhich parameters does {node.name} take, in order, "
        "and which of them have a default?"
    )
    solution = f"{', '.join(name for name, _ in parameters)}; with a default: {', '.join(optional) or 'none'}"
    steps = tuple(f"{name} has {'a' if has_default else 'no'} default." for name, has_default in parameters)
    return problem, solution, steps


def _parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[tuple[str, bool]]:
    """Names with their stars, and whether each has a default."""
    given = node.args
    positional = [*given.posonlyargs, *given.args]
    without = len(positional) - len(given.defaults)
    found = [(a.arg, n >= without) for n, a in enumerate(positional)]
    if given.vararg:
        found.append((f"*{given.vararg.arg}", False))
    found += [(a.arg, d is not None) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    if given.kwarg:
        found.append((f"**{given.kwarg.arg}", False))
    return found


def config_keys(text: str, path: str) -> Iterator[Made]:
    """Values at paths of a configuration file."""
    lines = text.splitlines()
    if not LEAST_LINES <= len(lines) <= MOST_LINES or "{{" in text or max(map(len, lines)) > 200:
        return
    value = _parsed(text, path)
    if not isinstance(value, dict):
        return
    leaves = [(keys, leaf) for keys, leaf in _leaves(value, ()) if keys[1:] or len(value) > 1]
    for keys, leaf in by_content(leaves, path)[:KEYS_A_FILE]:
        dotted = ".".join(keys)
        problem = f"{path}:\n{text.rstrip()}\n\nWhat is the value of {dotted} in this file?"
        steps = tuple(f"{'.'.join(keys[: n + 1])} is a mapping." for n in range(len(keys) - 1))
        yield problem, leaf, (*steps, f"{dotted} is {leaf}.")


def _parsed(text: str, path: str) -> Any:
    """The file as data; None for what is not one plain document (anchors, tags, repeated keys)."""
    try:
        if path.endswith(".json"):
            return json.loads(text, object_pairs_hook=_once)
        documents = [node for node in yaml.compose_all(text, Loader=yaml.SafeLoader) if node is not None]
        if len(documents) != 1 or re.search(r"(^|\s)[&*!][\w!]", text):
            return None
        return _plain(documents[0])
    except (ValueError, yaml.YAMLError, RecursionError):
        return None


def _plain(node: yaml.Node) -> Any:
    """Mappings and scalars as they are written; a list, which has no keys, as None."""
    if isinstance(node, yaml.MappingNode):
        return _once([(key.value, _plain(value)) for key, value in node.value if isinstance(key, yaml.ScalarNode)])
    if isinstance(node, yaml.ScalarNode) and node.style in (None, '"', "'"):
        return node.value
    return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands there twice")
    return dict(pairs)


def _leaves(value: dict[str, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for key, inner in value.items():
        if not isinstance(key, str) or not re.fullmatch(r"[\w/-]+", key) or _SECRET.search(key):
            continue
        here = (*above, key)
        if isinstance(inner, dict):
            yield from _leaves(inner, here)
        elif isinstance(inner, bool):
            yield here, "true" if inner else "false"
        elif isinstance(inner, int) or (isinstance(inner, str) and 0 < len(inner) <= 80 and "\n" not in inner):
            yield here, str(inner)


def _csharp(text: str, path: str, tasks: frozenset[str]) -> Iterator[tuple[str, Made]]:
    lines = text.splitlines()
    if "CodeDependency" in tasks and LEAST_LINES <= len(lines) <= 2 * MOST_LINES:
        used = sorted(set(re.findall(r"^using\s+([A-Za-z_][\w.]*)\s*;", text, re.M)))
        if used and "/*" not in text:
            problem = (
                f"{path}:\n{text.rstrip()}\n\nWhich namespaces does this file use? Give them in alphabetical order."
            )
            yield (
                "CodeDependency",
                (problem, ", ".join(used), tuple(f"There is a line: using {name};" for name in used)),
            )
    if "CodePurpose" in tasks:
        for made in list(_summaries(lines, path))[:FUNCTIONS_A_FILE]:
            yield "CodePurpose", made


def _summaries(lines: list[str], path: str) -> Iterator[Made]:
    """Members with a <summary>; shown is what follows, up to the line that closes it at the same indentation."""
    n = 0
    while n < len(lines):
        if not lines[n].lstrip().startswith("/// <summary>"):
            n += 1
            continue
        start = n
        while n < len(lines) and lines[n].lstrip().startswith("///"):
            n += 1
        comment = " ".join(line.strip().removeprefix("///").strip() for line in lines[start:n])
        match = re.search(r"<summary>(.*?)</summary>", comment)
        words = first_sentence(re.sub(r'<\w+ \w+="([^"]*)"\s*/>', r"\1", match[1]).strip()) if match else None
        if words is None or "<" in words or n >= len(lines):
            continue
        indentation = lines[n][: len(lines[n]) - len(lines[n].lstrip())]
        end = next(
            (m for m in range(n, min(n + MOST_LINES, len(lines))) if lines[m].rstrip() == f"{indentation}}}"), None
        )
        if end is None or "(" not in "".join(lines[n : n + 3]):
            continue
        shown = lines[n : end + 1]
        if len(shown) >= LEAST_LINES and not any("<summary>" in line for line in shown):
            source = textwrap.dedent("\n".join(shown))
            problem = f"{path}:\n{source}\n\nSay in one sentence what this does."
            yield problem, words, ("The code is a member with a body of its own.",)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
