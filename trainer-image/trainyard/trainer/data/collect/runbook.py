"""Runbooks: Markdown files, cut into entries that say what is seen, how to find the cause, and what to type.

An entry is a heading with something to do under it. Its parts are found in the two ways in which people write them: as
headings of their own (`### Symptoms`), or as words at the beginning of a paragraph (`**Symptom:** the queue grows`).
Commands are the lines of fenced code in a shell's language or none; prompts and comments are taken off, continued lines
joined. Prose without such a word is the diagnosis when commands follow it. A heading without commands, symptom or
diagnosis is an introduction and gives no entry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from trainyard.api.run.collectors import RunbookSource
from trainyard.trainer.data.collect import Record, Window
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.code import open_tree
from trainyard.trainer.data.collect.globs import matcher
from trainyard.trainer.data.collect.journal import Journal
from trainyard.trainer.data.collect.secrets import redact
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say

FILE_LIMIT = 4 * 2**20
SYMPTOM = "symptom"
DIAGNOSIS = "diagnosis"
COMMANDS = "commands"
_PARTS = {
    SYMPTOM: r"symptoms?|signs?|problem|alerts?|what you see|error(?: message)?|issue|impact",
    DIAGNOSIS: r"diagnos[ie]s|diagnostics?|causes?|root cause|why|investigat(?:e|ion)|explanation|background|checks?|verify"
    r"|verification",
    COMMANDS: r"commands?|fix(?:es)?|solutions?|resolutions?|remed(?:y|iation)|mitigation|actions?|steps?|recovery|what to do"
    r"|procedure|workaround",
}
_WORDS = {part: re.compile(rf"(?:{words})\b", re.IGNORECASE) for part, words in _PARTS.items()}
_LABEL = re.compile(
    r"^\s*(?:[-*+]\s+|\d+[.)]\s+)?(?:\*\*|__)?(?P<word>[A-Za-z][A-Za-z ]{2,24}?)(?:\*\*|__)?:(?:\*\*|__)?(?:\s+|$)"
    r"(?P<rest>.*)$"
)
_HEADING = re.compile(r"^(#{1,6})\s+(.*?)\s*#*\s*$")
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})\s*([\w+-]*)")
_SHELL = {
    "",
    "sh",
    "bash",
    "shell",
    "console",
    "zsh",
    "terminal",
    "shell-session",
    "powershell",
    "ps1",
    "cmd",
    "promql",
    "sql",
}
_PROMPT = re.compile(r"^[\w.@~:/-]*[$%>]\s+")


@dataclass
class Entry:
    """A heading and what was found under it."""

    title: str
    level: int
    parts: dict[str, list[str]] = field(default_factory=lambda: {SYMPTOM: [], DIAGNOSIS: []})
    prose: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


def collect(source: RunbookSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """One record per entry, by file and place."""
    tree = open_tree(source.url, source.storage_uri, source.ref, access, journal, path="", field="runbook.url")
    pattern = matcher(source.include)
    wanted = {path for path, size in tree.files if size <= FILE_LIMIT and pattern.fullmatch(path)}
    if not wanted:
        raise invalid_data(
            f"{access.name}: {tree.repository}: none of {len(tree.files)} files matches runbook.include "
            f"({', '.join(source.include)})",
            hint="correct runbook.include",
        )
    count = 0
    for path, content in tree.contents(wanted):
        for record in parse(redact(content.decode("utf-8-sig", errors="replace")), path):
            count += 1
            yield record
    say(f"{access.name}: {count} entries of {len(wanted)} runbooks")


def parse(text: str, path: str) -> Iterator[Record]:
    """The entries of one file."""
    stack: list[Entry] = []
    done: list[Entry] = []
    part: str | None = None
    lines = iter(text.splitlines())
    for line in lines:
        if heading := _HEADING.match(line):
            level, title = len(heading[1]), _plain(heading[2])
            part = _part_of(title)
            while stack and stack[-1].level >= level:
                stack.pop()
            if part is None or not stack:
                part = None
                entry = Entry(title, level)
                stack.append(entry)
                done.append(entry)
            continue
        if not stack:
            continue
        entry = stack[-1]
        if fence := _FENCE.match(line):
            block = list(_until(lines, fence[1]))
            if fence[2].lower() in _SHELL:
                entry.commands += _commands(block)
            else:
                entry.parts.get(part or "", entry.prose).append("\n".join(block))
            continue
        if (label := _LABEL.match(line)) and (named := _part_of(label["word"])):
            part, line = named, label["rest"]
        entry.parts.get(part or "", entry.prose).append(line)
    for entry in done:
        symptom, diagnosis = (_join(entry.parts[p]) for p in (SYMPTOM, DIAGNOSIS))
        diagnosis = diagnosis or (_join(entry.prose) if entry.commands else "")
        if entry.commands or (symptom and diagnosis):
            yield {
                "kind": "runbook_entry",
                "title": entry.title,
                "symptom": symptom,
                "diagnosis": diagnosis,
                "commands": entry.commands,
                "path": path,
            }


def _part_of(words: str) -> str | None:
    """Which part a heading or label begins; None for a title of its own."""
    text = words.strip().rstrip(":")
    return next((part for part, pattern in _WORDS.items() if pattern.fullmatch(text)), None)


def _until(lines: Iterator[str], fence: str) -> Iterator[str]:
    for line in lines:
        if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            return
        yield line


def _commands(block: list[str]) -> list[str]:
    """What is typed: without prompts, comments and, in a block with prompts, the output between them."""
    prompted = any(re.match(r"^\s*[\w.@~:/-]*[$%]\s+\S", line) for line in block)
    found: list[str] = []
    pending = ""
    for raw in block:
        line = raw.strip()
        if not pending and prompted:
            if not _PROMPT.match(line):
                continue
            line = _PROMPT.sub("", line)
        if not pending and (not line or line.startswith("#")):
            continue
        if line.endswith("\\"):
            pending += line[:-1].rstrip() + " "
            continue
        found.append(pending + line)
        pending = ""
    if pending:
        found.append(pending.strip())
    return found


def _join(lines: list[str]) -> str:
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip()


def _plain(title: str) -> str:
    return re.sub(r"[*`]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)).strip()
