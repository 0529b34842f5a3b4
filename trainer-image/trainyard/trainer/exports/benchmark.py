"""How fast what the exports in dependsOn have made answers, on the node where this step runs.

    files of gguf and mlx -> a process for each -> median of the repetitions -> benchmark.json, facts of the export
    a model in Ollama     -> the server's own times

The file lies in the export's folder, in the manner of the evaluation's metrics.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.benchmark import Benchmark
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.exports.exported import Exported, digest_of, files_dir
from trainyard.trainer.exports.ollama import server_of
from trainyard.trainer.exports.speed.measure import figures
from trainyard.trainer.log import say
from trainyard.trainer.machine import threads
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import commit_folder

FILE = "benchmark.json"
MEASURED = ("gguf", "mlx", "ollama")
SECONDS = 3600


def check(context: RunContext, export: Export, target: Benchmark) -> None:
    """Whether there will be anything to measure.

    Raises:
        UserError: no export in dependsOn can be asked.
    """
    kinds = {one.name: one.kind for one in context.run.spec.all_exports()}
    if not any(kinds.get(name) in MEASURED for name in export.depends_on):
        raise invalid_config(
            f"{export.field}: nothing in dependsOn can be measured",
            hint=f"name an export with {', '.join(MEASURED)} in it",
        )


def send(
    context: RunContext, export: Export, target: Benchmark, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Measure one after the other.

    Raises:
        UserError: one cannot be loaded.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, runs in _measurements(context, export, target, inputs):
        found[name] = _summary(runs)
        say(f"{export.field}: {name}: " + ", ".join(f"{key} {figure:.4g}" for key, figure in found[name].items()))

    def write(place: Path) -> None:
        (place / FILE).write_text(
            json.dumps({"target": target.model_dump(by_alias=True), "artefacts": found}, indent=1)
        )

    made = commit_folder(files_dir(context, export.name), write)
    return Exported(
        uri=made.path.relative_to(context.volume).as_posix(),
        digest=digest_of(made),
        files=(FILE,),
        facts={f"{name}.{key}": f"{figure:.6g}" for name, one in found.items() for key, figure in one.items()},
    )


def _measurements(
    context: RunContext, export: Export, target: Benchmark, inputs: Mapping[str, Exported]
) -> Iterator[tuple[str, dict[str, Any]]]:
    exports = {one.name: one for one in context.run.spec.all_exports()}
    for before, exported in inputs.items():
        folder, kind = files_dir(context, before), exports[before].kind
        if kind == "gguf":
            for name in exported.files:
                yield name, _by_process("gguf", folder / name, target, field=export.field)
        elif kind == "mlx":
            yield before, _by_process("mlx", folder, target, field=export.field)
        elif kind == "ollama":
            yield before, _by_ollama(context, exports[before], target)


def _by_process(kind: str, path: Path, target: Benchmark, *, field: str) -> dict[str, Any]:
    numbers = (target.prompt_tokens, target.new_tokens, target.repetitions, threads.available())
    words = [sys.executable, "-m", "trainyard.trainer.exports.speed.measure", kind, str(path), *map(str, numbers)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no word about why"])[-1]
        raise invalid_config(
            f"{field}: {path.name} cannot be measured: {first_line(last)}", hint="the log has all of it"
        )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _by_ollama(context: RunContext, other: Export, target: Benchmark) -> dict[str, Any]:
    from trainyard.trainer.exports import filled_target

    wanted = filled_target(context, other)
    server, model = server_of(context, other, wanted), wanted.model
    runs = []
    for number in range(target.repetitions):
        # Ollama keeps the last prompt; another beginning each time makes it read all of it.
        prompt = " ".join(["word", str(number), *(["on"] * max(1, target.prompt_tokens - 3))])
        options = {
            "temperature": 0,
            "num_predict": target.new_tokens,
            "num_ctx": target.prompt_tokens + target.new_tokens + 64,
        }
        said = server.generate({"model": model, "prompt": prompt, "raw": True, "options": options, "keep_alive": "5m"})
        runs.append(
            figures(
                prompt=said["prompt_eval_count"],
                prompt_seconds=said["prompt_eval_duration"] / 1e9,
                new=said["eval_count"],
                new_seconds=max(1, said["eval_duration"]) / 1e9,
            )
        )
    sizes = [entry.get("size", 0) for entry in server.running() if str(entry.get("name", "")).startswith(model)]
    return {"peakBytes": max(sizes, default=0), **{name: [run[name] for run in runs] for name in runs[0]}}


def _summary(measured: Mapping[str, Any]) -> dict[str, Any]:
    return {key: median(figure) if isinstance(figure, list) else figure for key, figure in measured.items()}
