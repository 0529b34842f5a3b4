"""Raw records as plain text, for training on them as they are (format Text, no generator chosen)."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from trainyard.trainer.data.collect import Record


def plain_text(record: Record) -> str | None:
    """The record's text by its kind; None for a record that has no kind of ours."""
    match record.get("kind"):
        case "code":
            return f"File: {record['path']}\n\n{record['text']}"
        case "series":
            about = record.get("metadata") or {}
            head = [f"Metric: {_labels(record['metric'])}", f"Query: {record['query']}"]
            head += [f"{word}: {about[key]}" for key, word in (("type", "Type"), ("help", "Help")) if about.get(key)]
            return "\n".join([*head, *(f"{_time(at)} {value:g}" for at, value in record["values"])])
        case "log":
            return f"{_time(record['timestamp_ns'] / 1e9)} {_labels(record['labels'])} {record['line']}"
        case "trace":
            return "\n".join([f"Trace: {record['trace_id']}", *map(_span, record["spans"])])
        case "runbook_entry":
            parts = [f"# {record['title']}"]
            parts += [
                f"{word}: {record[key]}"
                for key, word in (("symptom", "Symptom"), ("diagnosis", "Diagnosis"))
                if record[key]
            ]
            parts += ["Commands:\n" + "\n".join(record["commands"])] if record["commands"] else []
            return "\n\n".join(parts)
    return None


def _span(span: Record) -> str:
    parent = f" under {span['parent_id']}" if span["parent_id"] else ""
    attributes = " ".join(f"{k}={_word(v)}" for k, v in sorted(span["attributes"].items()))
    return (
        f"{_time(span['start_ns'] / 1e9)} {span['service']} {span['name']} {span['duration_ns'] / 1e6:g} ms "
        f"{span['status']} {span['span_id']}{parent} {attributes}"
    ).rstrip()


def _labels(labels: Record) -> str:
    inner = ",".join(f'{k}="{v}"' for k, v in sorted(labels.items()) if k != "__name__")
    return f"{labels.get('__name__', '')}{{{inner}}}"


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
