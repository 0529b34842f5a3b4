"""One value inside a YAML (or JSON) file is replaced; every other byte of the file stays. Pure.

    spec.template.spec.containers[name=vllm].image        images[0].newTag        metadata.annotations["example.org/model"]

The parser says where the value stands, and only that place is written anew, so comments, order, indentation and quotes are
those of the file's author. Then both texts are read again, and a difference beside the one that is wanted is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_STEP = re.compile(
    r"""\.?(?P<key>[^.\[\]"']+)|\.?\["(?P<quoted>[^"\]]+)"\]|\[(?P<index>\d{1,6})\]|\[(?P<by>[^=\[\]]+)=(?P<value>[^\]]*)\]"""
)
_NUMBER = re.compile(r"[-+]?(\d[\d_]*|0[xo][0-9a-f]+|(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)", re.IGNORECASE)
"""What some reader of YAML, of whichever version, takes for a number."""


class NotThere(Exception):
    """The path leads to no single value; the text says why."""


@dataclass(frozen=True)
class Step:
    """One step of a path: a key, an index, or the entry of a list whose field `by` is `value`."""

    key: str | None = None
    index: int | None = None
    by: str = ""
    value: str = ""


def parse_path(path: str) -> tuple[Step, ...]:
    """Raises NotThere if it is none."""
    steps, at = [], 0
    while at < len(path):
        found = _STEP.match(path, at)
        if found is None or (at == 0 and path[0] == "."):
            raise NotThere(f'{path!r} is no path: write a.b, a[0], a[name=x] or a["x.y"]')
        at = found.end()
        key = found["key"] or found["quoted"]
        index = int(found["index"]) if found["index"] else None
        steps.append(Step(key, index, found["by"] or "", found["value"] or ""))
    return tuple(steps)


def read(text: str, path: str) -> str:
    """The value's text. Raises NotThere."""
    return str(_find(text, path).value)


def replace(text: str, path: str, value: str) -> str:
    """The text with this value at the path; the same text where it stands there already. Raises NotThere."""
    node = _find(text, path)
    if node.value == value:
        return text
    start, end = node.start_mark.index, node.end_mark.index
    written = _written(node, value)
    if start == end and start and not text[start - 1].isspace():  # `key:` without a value
        written = f" {written}"
    changed = text[:start] + written + text[end:]
    _insist(text, changed, node, value)
    return changed


def _find(text: str, path: str) -> yaml.ScalarNode:
    steps = parse_path(path)
    found, missing = [], []
    for document in _documents(text):
        try:
            found.append(_walk(document, steps))
        except NotThere as error:
            missing.append(str(error))
    if len(found) != 1:
        why = missing[0] if missing else "the file is empty"
        raise NotThere(f"{path} is in {len(found)} documents of the file" if found else f"{path}: {why}")
    node = found[0]
    if not isinstance(node, yaml.ScalarNode):
        raise NotThere(
            f"{path} is a {'list' if isinstance(node, yaml.SequenceNode) else 'mapping'}, not a single value"
        )
    if node.style in ("|", ">"):
        raise NotThere(f"{path} is a text over several lines; put the value on one line there")
    if text[node.start_mark.index : node.end_mark.index].startswith(("&", "!")):
        raise NotThere(f"{path} has an anchor or a tag, on which other values may hang; write it there without one")
    return node


def _documents(text: str) -> Iterator[yaml.Node]:
    try:
        for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
            if document is not None:
                yield document
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise NotThere(
            f"the file is no YAML: {where}{getattr(error, 'problem', None) or type(error).__name__}"
        ) from None


def _walk(node: yaml.Node, steps: tuple[Step, ...]) -> yaml.Node:
    for step in steps:
        found = _children(node, step)
        if len(found) != 1:
            what = (
                step.key
                if step.key is not None
                else step.index
                if step.index is not None
                else f"{step.by}={step.value}"
            )
            raise NotThere(f"there {'is no' if not found else 'are several'} {what} at line {node.start_mark.line + 1}")
        node = found[0]
    return node


def _children(node: yaml.Node, step: Step) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode) and step.key is not None:
        return [child for key, child in node.value if _is_key(key, step)]
    if isinstance(node, yaml.SequenceNode) and step.index is not None:
        return list(node.value[step.index : step.index + 1])
    if isinstance(node, yaml.SequenceNode) and step.by:
        return [child for child in node.value if isinstance(child, yaml.MappingNode) and _has(child, step)]
    return []


def _is_key(key: yaml.Node, step: Step) -> bool:
    return isinstance(key, yaml.ScalarNode) and key.value == step.key


def _has(node: yaml.MappingNode, step: Step) -> bool:
    return any((key.value, child.value) == (step.by, step.value) for key, child in node.value)


def _written(node: yaml.ScalarNode, value: str) -> str:
    """In the quotes that were there; without any only where every reader takes it for a text, as it did before."""
    if node.style == "'" and value.isprintable():
        return "'" + value.replace("'", "''") + "'"
    if (
        node.style is None
        and _plain(value)
        and (_tag(value) == node.tag or (_tag(value) == _TEXT and node.tag == _NULL))
    ):
        return value
    return '"' + "".join(map(_escaped, value)) + '"'


def _escaped(character: str) -> str:
    """As YAML and JSON have it in common."""
    if character in '"\\':
        return f"\\{character}"
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


_TEXT, _NULL, _INT = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "null", "int"))


def _plain(value: str) -> bool:
    """Whether it can stand without quotes."""
    if _NUMBER.fullmatch(value) and not re.fullmatch(r"0|[1-9]\d*", value):
        return False
    return re.fullmatch(r"[\w/.][\w/.:+@=-]*(?<!:)", value, re.ASCII) is not None


def _tag(value: str) -> str:
    return str(yaml.SafeLoader("").resolve(yaml.ScalarNode, value, (True, False)))  # type: ignore[no-untyped-call]


def _insist(before: str, after: str, node: yaml.ScalarNode, value: str) -> None:
    """That the one value is another one, and the parser meets nothing else that it did not meet before."""
    try:
        old, new = _events(before), _events(after)
    except yaml.YAMLError:
        old, new = [], []
    changed = [(a, b) for a, b in zip(old, new, strict=False) if a[1:] != b[1:]]
    place = node.start_mark.index
    if len(old) != len(new) or [(a[0], b[-1]) for a, b in changed] != [(place, value)]:
        raise NotThere(f"{value!r} cannot be written at line {node.start_mark.line + 1}")


def _events(text: str) -> list[tuple[Any, ...]]:
    """What the parser meets: place, kind, anchor and tag, value."""
    return [
        (
            e.start_mark.index if e.start_mark else 0,
            type(e),
            getattr(e, "anchor", None),
            getattr(e, "tag", None),
            getattr(e, "value", None),
        )
        for e in yaml.parse(text, Loader=yaml.SafeLoader)
    ]
