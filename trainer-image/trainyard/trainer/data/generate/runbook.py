"""Examples from runbook entries: a question with its answer, and the first command as a call of a tool or as it is typed.

The answers are the runbook's own words. A command is an answer only where it can be run as it stands: one with a place to
fill in is not. Typed, it is for models whose chat template knows no tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from trainyard.trainer.data.generate.example import Example

_TO_FILL_IN = re.compile(r"<[^<>\s][^<>]*>|\$\{?[A-Za-z_]|\{\{|\.\.\.|\b(?i:YOUR|MY)_|\bNAME\b|\bPOD\b")
"""NAME and POD in capitals are places; in small letters they are words of kubectl."""


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
        runs = bool(commands) and runs_as_it_stands(commands[0])
        if "RunbookShell" in self._tasks and runs:
            problem = f"{title}\nSymptom: {symptom}\nAnswer with the runbook's first command."
            yield Example("RunbookShell", problem, commands[0], (), "runbook", path, "runbook")
        if "RunbookCommand" in self._tasks and runs:
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
