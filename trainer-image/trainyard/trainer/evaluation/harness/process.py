"""What runs in the process of its own: lm-evaluation-harness.

    python process.py HARNESS REQUEST      (a file of JSON: model, include, tasks, limit, batch, device, dtype, out)

HARNESS goes last on the path: it holds only what the environment has not. Templates run in a sandbox, because the harness's own
would let a text of a task reach into Python. This file imports nothing of Trainyard.
"""

import json
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

RESULTS, RECORDS = "results.json", "records.jsonl"


def main(harness: str, request: str) -> int:
    wanted = json.loads(Path(request).read_text())
    sys.path.append(harness)
    sandbox: Any = import_module("jinja2.sandbox")
    utils: Any = import_module("lm_eval.utils")
    own, safe = utils.env, sandbox.SandboxedEnvironment
    utils.env = safe(loader=own.loader, undefined=own.undefined, keep_trailing_newline=own.keep_trailing_newline)
    utils.env.filters.update(own.filters)

    lm_eval: Any = import_module("lm_eval")
    tasks: Any = import_module("lm_eval.tasks")
    models: Any = import_module("lm_eval.models.huggingface")
    os.chdir(wanted["include"])  # files of data are named from there
    model = models.HFLM(
        pretrained=wanted["model"], dtype=wanted["dtype"], device=wanted["device"], batch_size=wanted["batch"]
    )
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=wanted["tasks"],
        task_manager=tasks.TaskManager(include_path=wanted["include"], include_defaults=False),
        limit=wanted["limit"],
        bootstrap_iters=0,
        log_samples=True,
    )
    out = Path(wanted["out"])
    (out / RESULTS).write_text(json.dumps({"results": found["results"], "counts": found["n-samples"]}, default=float))
    with open(out / RECORDS, "w", encoding="utf-8") as stream:
        for task, rows in found["samples"].items():
            for row in rows:
                stream.write(json.dumps(_record(task, row), ensure_ascii=False, default=str) + "\n")
    return 0


def _record(task: str, row: dict[str, Any]) -> dict[str, Any]:
    scores = {name: row[name] for name in row["metrics"]}
    plain = {name: _score(one) for name, one in scores.items()}
    return {
        "task": task,
        "record": row["doc_id"],
        "filter": row["filter"],
        "target": row["target"],
        "answer": row["filtered_resps"],
        **{name: one for name, one in plain.items() if one is not None},
    }


def _score(one: Any) -> float | list[float] | None:
    """A number, or a sum and what it is divided by; None where a score is made of all records together."""
    if isinstance(one, int | float):
        return float(one)
    numbers = isinstance(one, tuple) and all(isinstance(part, int | float) for part in one)
    return [float(part) for part in one] if numbers else None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
