"""Examples from code and runbooks: the answer is found again by running the definition, or by reading the text plainly."""

from __future__ import annotations

import inspect
import json
import re
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from trainyard.trainer.data.generate import examples_of
from trainyard.trainer.data.generate.runbook import runs_as_it_stands
from trainyard.trainer.data.row import Row

STDLIB = Path(sysconfig.get_path("stdlib"))
FILES = sorted(
    p for name in ("json", "email", "logging", "http", "concurrent/futures") for p in (STDLIB / name).glob("*.py")
)


def made(task: str, text: str, path: str, **more: Any) -> list[dict[str, Any]]:
    record = {"kind": "code", "path": path, "language": more.pop("language", ""), "text": text, **more}
    return [row.value for row in examples_of([Row(path, 1, record)], [task])]


def source_of(problem: str) -> str:
    return problem.split(":\n", 1)[1].rsplit("\n\n", 1)[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_signatures_as_python_sees_them(path: Path) -> None:
    """The definition is compiled and asked with inspect; its annotations and defaults need not exist for that."""
    for example in made("CodeSignature", path.read_text(), str(path)):
        name = re.search(r"function (\w+):", example["problem"])[1]  # type: ignore[index]
        space: dict[str, Any] = _Anything()
        exec("from __future__ import annotations\n" + source_of(example["problem"]), space)
        parameters = inspect.signature(inspect.unwrap(space[name])).parameters.values()
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        names = [stars.get(p.kind, "") + p.name for p in parameters]
        optional = [p.name for p in parameters if p.default is not inspect.Parameter.empty]
        assert example["solution"] == f"{', '.join(names)}; with a default: {', '.join(optional) or 'none'}"


class _Anything(dict):  # type: ignore[type-arg]
    """A namespace in which every unknown name is some value."""

    def __missing__(self, key: str) -> Any:
        if key in ("__builtins__",):
            raise KeyError(key)
        return _Value()


class _Value:
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __call__(self, *given: Any, **named: Any) -> Any:
        return given[0] if len(given) == 1 and callable(given[0]) else self

    def __or__(self, other: Any) -> Any:
        return self

    __ror__ = __mul__ = __add__ = __getitem__ = __or__


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_as_the_compiler_sees_them(path: Path) -> None:
    for example in made("CodeDependency", path.read_text(), str(path)):
        code = [compile(source_of(example["problem"]), "f", "exec")]
        found = set()
        while code:
            import dis

            one = code.pop()
            code += [c for c in one.co_consts if inspect.iscode(c)]
            steps = list(dis.get_instructions(one))
            for n, step in enumerate(steps):
                if step.opname == "IMPORT_NAME":
                    level = next(
                        s.argval for s in reversed(steps[:n]) if isinstance(s.argval, int) and s.opname == "LOAD_CONST"
                    )
                    if level == 0:
                        found.add(step.argval.partition(".")[0])
        assert example["solution"] == ", ".join(sorted(found))


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_purpose_is_the_authors_own_sentence(path: Path) -> None:
    text = path.read_text()
    plain = " ".join(text.replace('"""', " ").split())
    for example in made("CodePurpose", text, str(path)):
        assert example["solution"] in plain
        assert example["solution"] not in " ".join(example["problem"].split()), (
            "the answer must not stand in the question"
        )
        compile(source_of(example["problem"]), "f", "exec")


def test_purposes_that_say_nothing() -> None:
    body = "\n    a = 1\n    b = 2\n    c = 3\n    return a + b + c\n"
    for words in (
        "TODO: write this down some day.",
        "Same as the other one above here.",
        "Too short.",
        ">>> add(1, 2) is three",
    ):
        assert not made("CodePurpose", f'def add():\n    """{words}"""{body}', "a.py")
    found = made("CodePurpose", f'def add():\n    """Add three numbers that are fixed. And more."""{body}', "a.py")
    assert [e["solution"] for e in found] == ["Add three numbers that are fixed."]


YAML = """\
service:
  name: orders
  replicas: 3
  ports:
  - 80
  limits:
    memory: 512Mi
    cpu: "0.5"
debug: false
apiToken: abc
"""


def test_config_keys_by_indentation() -> None:
    """Found again by walking lines and their indentation, without a parser."""
    found = made("CodeConfigKey", YAML, "values.yaml")
    assert len(found) == 4
    truth: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in YAML.splitlines():
        indent = len(line) - len(line.lstrip())
        key, _, value = line.strip().partition(":")
        stack = [s for s in stack if s[0] < indent]
        stack.append((indent, key))
        truth[".".join(k for _, k in stack)] = value.strip().strip('"')
    for example in found:
        asked = re.search(r"value of (\S+) in", example["problem"])[1]  # type: ignore[index]
        assert example["solution"] == truth[asked]
        assert "Token" not in asked


def test_config_keys_of_json_and_what_is_passed_over() -> None:
    value = {"a": {"b": 1, "c": "x", "on": True}, "d": "e", "f": {"g": [1]}}
    for example in made("CodeConfigKey", json.dumps(value, indent=2), "a.json"):
        asked = re.search(r"value of (\S+) in", example["problem"])[1]  # type: ignore[index]
        found: Any = value
        for part in asked.split("."):
            found = found[part]
        assert json.dumps(found).strip('"') == example["solution"]
    assert not made("CodeConfigKey", YAML + "x: &a 1\n", "a.yaml"), "anchors"
    assert not made("CodeConfigKey", YAML + "debug: true\n", "a.yaml"), "a key twice"
    assert not made("CodeConfigKey", YAML + "x: {{ .Values.a }}\n", "a.yaml"), "a template"
    assert not made("CodeConfigKey", YAML + "---\na: 1\n", "a.yaml"), "two documents"


CSHARP = """\
using System;
using System.Linq;

namespace Shop
{
    public class Cart
    {
        /// <summary>
        /// Adds the prices of all items in the cart.
        /// </summary>
        public decimal Total()
        {
            var sum = items.Sum(i => i.Price);
            return sum;
        }
    }
}
"""


def test_csharp() -> None:
    (purpose,) = made("CodePurpose", CSHARP, "Cart.cs")
    assert purpose["solution"] == "Adds the prices of all items in the cart."
    assert purpose["problem"].count("{") == purpose["problem"].count("}")
    assert "summary" not in purpose["problem"]
    (uses,) = made("CodeDependency", CSHARP, "Cart.cs")
    assert uses["solution"] == "System, System.Linq"


ENTRY = {
    "kind": "runbook_entry",
    "title": "Disk full",
    "symptom": "Pods are evicted.",
    "diagnosis": "The node's disk is full.",
    "commands": ["df -h /var", "kubectl delete pod <name>"],
    "path": "RUNBOOK.md",
}


def test_runbook() -> None:
    rows = [Row("r", 1, ENTRY)]
    question, call = (row.value for row in examples_of(rows, ["RunbookQuestion", "RunbookCommand"]))
    assert question["solution"] == "The node's disk is full.\nCommands:\ndf -h /var\nkubectl delete pod <name>"
    assert json.loads(call["solution"]) == {"name": "run_command", "arguments": {"command": "df -h /var"}}
    assert call["metadata"]["type"] == "function_call"
    (typed,) = (row.value for row in examples_of(rows, ["RunbookShell"]))
    assert (typed["solution"], typed["reasoning_steps"]) == ("df -h /var", [])
    first = {**ENTRY, "commands": ENTRY["commands"][::-1]}
    assert [r.value["task"] for r in examples_of([Row("r", 1, first)], [])] == ["RunbookQuestion"]
    assert not list(examples_of([Row("r", 1, {**ENTRY, "symptom": ""})], []))


@pytest.mark.parametrize(
    "command", ["kubectl get pods -A", "df -h", "systemctl restart nginx", "kubectl describe pod -l app=a"]
)
def test_a_command_that_runs_as_it_stands(command: str) -> None:
    assert runs_as_it_stands(command)


@pytest.mark.parametrize(
    "command", ["kubectl logs <pod>", "ssh $HOST", "cat a\ncat b", "kubectl logs POD", "x {{ y }}", "a ... b"]
)
def test_a_command_with_a_place_to_fill_in(command: str) -> None:
    assert not runs_as_it_stands(command)
