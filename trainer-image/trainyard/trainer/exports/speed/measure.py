"""One measurement, as a process: `python -m trainyard.trainer.exports.speed.measure KIND PATH PROMPT NEW REPETITIONS THREADS`.

The last line on stdout is a JSON object with a list for each figure, an entry a repetition, and the peak of resident memory.
The prompt is made of the tokens 100, 101, ... : speed does not ask for sense.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

FIRST_TOKEN = 100


def main(kind: str, path: str, prompt: int, new: int, repetitions: int, threads: int) -> dict[str, Any]:
    """Measure a `gguf` file or an `mlx` folder."""
    started = time.monotonic()
    ask = {"gguf": _gguf, "mlx": _mlx}[kind](Path(path), threads)
    loaded = time.monotonic() - started
    runs = [ask(list(range(FIRST_TOKEN, FIRST_TOKEN + prompt)), new) for _ in range(repetitions)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "loadSeconds": loaded,
        "peakBytes": peak,
        **{name: [run[name] for run in runs] for name in runs[0]},
    }


def figures(*, prompt: int, prompt_seconds: float, new: int, new_seconds: float) -> dict[str, float]:
    """Rates from times; `new_seconds` is that of all new tokens after the first."""
    return {
        "promptTokensPerSecond": prompt / prompt_seconds,
        "newTokensPerSecond": max(1, new - 1) / new_seconds,
        "firstTokenSeconds": prompt_seconds,
    }


def _gguf(file: Path, threads: int) -> Any:
    from trainyard.trainer.exports.handover.llamacpp import GREEDY, opened

    program = opened(file, threads=threads)

    def ask(prompt: list[int], new: int) -> dict[str, float]:
        said = program.post("/completion", {"prompt": prompt, "n_predict": new, "ignore_eos": True, **GREEDY})
        times = said["timings"]
        # The first token comes with the prompt; the others have times of their own.
        return figures(
            prompt=len(prompt),
            prompt_seconds=times["prompt_ms"] / 1e3,
            new=new,
            new_seconds=times["predicted_ms"] / 1e3,
        )

    return ask


def _mlx(folder: Path, threads: int) -> Any:
    import mlx.core as mx
    from mlx_lm.generate import generate_step

    from trainyard.trainer.exports.mlx import load

    network, _ = load(folder)

    def ask(prompt: list[int], new: int) -> dict[str, float]:
        started = time.monotonic()
        moments = [time.monotonic() for _ in generate_step(mx.array(prompt), network, max_tokens=new)]
        return figures(
            prompt=len(prompt),
            prompt_seconds=moments[0] - started,
            new=len(moments),
            new_seconds=moments[-1] - moments[0],
        )

    return ask


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7]))))
