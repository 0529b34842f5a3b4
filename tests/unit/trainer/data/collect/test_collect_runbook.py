"""Runbooks in the ways in which people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.git_server import commit, serving
from tests.unit.trainer.data.collect.collecting import records
from trainyard.trainer.data.collect.runbook import parse
from trainyard.trainer.errors import UserError

BY_HEADINGS = """
# Runbook of the queue

How to keep it running.

## Queue is full

### Symptoms

The metric `queue_depth` is above 1000.

### Diagnosis

A consumer hangs.
Look at its log.

### Commands

```bash
$ kubectl get pods -n queue
NAME   READY
a      1/1
$ kubectl delete pod -n queue \\
    consumer-0
# that is all
```

## Disk is full ##

```sh
df -h   # how full
du -sh /data/*
```

## Who to ask

The team.
"""

BY_LABELS = """# Database

## Too many connections

**Symptom:** the log says `FATAL: too many clients`.

**Cause**: a service leaks connections.

Some more about it.

**Fix:**

1. Restart it.

~~~
psql -c 'select count(*) from pg_stat_activity'
~~~

```json
{"max_connections": 100}
```

## Slow

- Symptom: queries take seconds
- Root cause: a missing index
"""


def test_parts_under_headings_of_their_own() -> None:
    queue, disk = parse(BY_HEADINGS, "RUNBOOK.md")
    assert queue == {
        "kind": "runbook_entry",
        "title": "Queue is full",
        "symptom": "The metric `queue_depth` is above 1000.",
        "diagnosis": "A consumer hangs.\nLook at its log.",
        "commands": ["kubectl get pods -n queue", "kubectl delete pod -n queue consumer-0"],
        "path": "RUNBOOK.md",
    }
    assert (disk["title"], disk["commands"]) == ("Disk is full", ["df -h   # how full", "du -sh /data/*"])


def test_parts_that_begin_with_a_word() -> None:
    connections, slow = parse(BY_LABELS, "a.md")
    assert connections["symptom"] == "the log says `FATAL: too many clients`."
    assert connections["diagnosis"] == "a service leaks connections.\n\nSome more about it."
    assert connections["commands"] == ["psql -c 'select count(*) from pg_stat_activity'"]
    assert (slow["symptom"], slow["diagnosis"]) == ("queries take seconds", "a missing index")


def test_the_files_are_found_by_pattern_and_cleaned(tmp_path: Path) -> None:
    docs = tmp_path / "volumes" / "docs"
    (docs / "team" / "runbooks").mkdir(parents=True)
    (docs / "RUNBOOK.md").write_text(BY_HEADINGS)
    (docs / "team" / "runbooks" / "db.md").write_text("## Log in\n```\npsql postgresql://admin:hunter22@db/x\n```\n")
    (docs / "README.md").write_text(BY_LABELS)
    found = records(tmp_path, runbook={"storageUri": "pvc://docs/"})
    assert [(r["path"], r["title"]) for r in found] == [
        ("RUNBOOK.md", "Queue is full"),
        ("RUNBOOK.md", "Disk is full"),
        ("team/runbooks/db.md", "Log in"),
    ]
    assert found[2]["commands"] == ["psql postgresql://admin:<redacted:password-in-address>@db/x"]


def test_from_a_repository(tmp_path: Path) -> None:
    commit(tmp_path / "git" / "app", {"docs/RUNBOOK.md": BY_HEADINGS})
    with serving(tmp_path / "git") as server:
        assert len(records(tmp_path, runbook={"url": f"{server.url}/app"})) == 2


def test_none_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "volumes" / "docs").mkdir(parents=True)
    (tmp_path / "volumes" / "docs" / "README.md").write_text("x")
    with pytest.raises(UserError, match=r"none of 1 files matches runbook.include \(\*\*/RUNBOOK.md"):
        records(tmp_path, runbook={"storageUri": "pvc://docs/"})
