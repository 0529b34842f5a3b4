"""Examples from runbook entries: a question with its answer, and a call of a tool.

The answers are the runbook's own words. The call is the first command of an entry, and only where it can be run as it
stands: a command with a place to fill in is not one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from trainyard.trainer.data.generate.example import Example

_TO_FILL_IN = re.compile(r"<[^<>\s][^<>]*>|\$\{?[A-Za-z_]|\{\{|\.\.\.|\b(?:YOUR|MY)_|\bNAME\b|\bPOD\b", re.I)


class RunbookMaker:
    """Entries one by one."""

    kind = "runbook_entry"

    def __init__(self, tasks: frozenset[str]) -> None:
        self._tasks = tasks

    def add(self, record: dict[str, Any]) -> Iterator[Example]:
        """Examples from one entry."""
        title, symptom, diagnosis = (str(record.get(k) or "").strip() for k in ("title", "symptom", "diagnosis"))
        commands = [c.strip() for c in record.get("commands") or () if isinstance(c, str) and c.strip()]
        path = str(record.get("path") or "")
        if not title or not symptom:
            return
        if "RunbookQuestion" in self._tasks and diagnosis:
            listed = "\n".join(["", "Commands:", *commands]) if commands else ""
            problem = f"{title}\nSymptom: {symptom}\nWhat is behind it, and what is to be done?"
            steps: tuple[str, ...] = (f"The runbook has an entry for it: {title}.",)
            yield Example("RunbookQuestion", problem, f"{diagnosis}{listed}", steps, "runbook", path, "runbook")
        if "RunbookCommand" in self._tasks and commands and runs_as_it_stands(commands[0]):
            problem = f"{title}\nSymptom: {symptom}\nRun the runbook's first command."
            call = {"name": "run_command", "arguments": {"command": commands[0]}}
            steps = (f"The runbook has an entry for it: {title}.", f"Its first command is: {commands[0]}")
            solution = json.dumps(call, ensure_ascii=False)
            yield Example("RunbookCommand", problem, solution, steps, "runbook", path, "function_call")

    def end(self) -> Iterator[Example]:
        """Nothing is held back."""
        return iter(())


def runs_as_it_stands(command: str) -> bool:
    """Whether nothing in it has to be filled in, and it is one line."""
    return "\n" not in command and not _TO_FILL_IN.search(command)
