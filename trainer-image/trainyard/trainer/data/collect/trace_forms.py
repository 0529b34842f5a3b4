"""A reasoning trace, and the forms in which tunix-rt writes it: pure.

    trace              id, prompts, trace_steps, final_answer, metadata
    training_example   prompt (which asks for the steps), response (numbered steps, then the answer), metadata
    tunix_sft          id, prompts (two turns of Gemma's: the question; numbered steps and answer), final_answer, metadata
    TRM                problem, initial_answer, solution, reasoning_steps, metadata: the form that datasets are kept in,
                       because each of the others can be made of it (`trace_of`)

What is missing in a trace stays missing in its record, so that it is told with all other faults of the records.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from trainyard.trainer.data.collect import Record

FORMS = {"Trace": "trace", "TrainingExample": "training_example", "TunixSFT": "tunix_sft"}
"""By our names: those of the store."""
ASKED = "Please show your reasoning steps."


@dataclass(frozen=True)
class Trace:
    """What the store knows of one."""

    id: str
    created_at: str
    version: Any
    prompt: Any
    steps: list[Any]
    answer: Any
    meta: Mapping[str, Any]

    @classmethod
    def of(cls, trace_id: str, moment: Any, payload: Any) -> Trace:
        """From a row. Whatever the payload is: its parts that are not there are None."""
        body = payload if isinstance(payload, dict) else {}
        steps, meta = body.get("steps"), body.get("meta")
        return cls(
            id=trace_id,
            created_at=_moment(moment),
            version=body.get("trace_version"),
            prompt=body.get("prompt"),
            steps=[s.get("content") if isinstance(s, dict) else s for s in steps] if isinstance(steps, list) else [],
            answer=body.get("final_answer"),
            meta=meta if isinstance(meta, dict) else {},
        )


def written(trace: Trace, form: str) -> Record:
    """In the form of `exportFormat`, or by the store's own name for it."""
    facts = {"created_at": trace.created_at, "trace_version": trace.version}
    match form:
        case "TRM":
            return _kept(trace)
        case "Trace" | "trace":
            return {
                "id": trace.id,
                "prompts": trace.prompt,
                "trace_steps": trace.steps,
                "final_answer": trace.answer,
                "metadata": {**facts, **trace.meta},
            }
        case "TrainingExample" | "training_example":
            lines = [f"{n}. {step}" for n, step in enumerate(trace.steps, start=1)]
            response = "\n".join([*(["Reasoning:"] if lines else []), *lines, f"Answer: {trace.answer}"])
            return {
                "prompt": None if trace.prompt is None else f"{trace.prompt}\n\n{ASKED}",
                "response": None if trace.answer is None else response,
                "metadata": {"source_trace_id": trace.id, **facts, **trace.meta},
            }
        case "TunixSFT" | "tunix_sft":
            steps = "".join(f"{n}. {step}\n" for n, step in enumerate(trace.steps, start=1))
            answer = f"{'Reasoning:' + chr(10) if steps else ''}{steps}Answer: {trace.answer}"
            turns = f"<start_of_turn>user\n{trace.prompt}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>"
            return {
                "id": trace.id,
                "prompts": None if trace.prompt is None else turns,
                "final_answer": trace.answer,
                "metadata": {**facts, "format": "tunix_sft", **trace.meta},
            }
    raise ValueError(f"{form} is no form of a trace")


def _kept(trace: Trace) -> Record:
    source = trace.meta.get("source")
    return {
        "problem": trace.prompt,
        "initial_answer": "",
        "solution": trace.answer,
        "reasoning_steps": trace.steps,
        "metadata": {
            "source": source if isinstance(source, str) else "",
            "query": "",
            "type": "reasoning_trace",
            "timestamp": trace.created_at,
            "trace": {"id": trace.id, "version": trace.version, "meta": dict(trace.meta)},
        },
    }


def trace_of(record: Record) -> Trace:
    """The trace that a TRM record was made of. Raises KeyError where it was made of something else."""
    metadata = record["metadata"]
    told = metadata["trace"]
    return Trace(
        id=told["id"],
        created_at=metadata["timestamp"],
        version=told["version"],
        prompt=record["problem"],
        steps=record["reasoning_steps"],
        answer=record["solution"],
        meta=told["meta"],
    )


def _moment(value: Any) -> str:
    if not isinstance(value, datetime):
        return "" if value is None else str(value)
    aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return aware.isoformat().replace("+00:00", "Z")
