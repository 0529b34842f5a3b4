"""Several programs that train, side by side: each is a process of its own, and they take turns.

A few steps of one, then of the next, round after round, while the others sleep, so that whatever else the machine does hits all
of them alike. Only real tokens count, never padding. The first steps of each are not measured.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class Turns:
    """In a contestant's process: after so many steps it reports, and waits for its next turn."""

    def __init__(self, steps: int, warm_up: int) -> None:
        self._steps = steps
        self._left = warm_up
        self._measuring = False
        self._started = self._cpu = 0.0
        self._tokens = 0

    def step_ended(self, tokens: int) -> None:
        """`tokens`: real tokens so far, over the whole run."""
        self._left -= 1
        if self._left:
            return
        spent = {"seconds": time.perf_counter() - self._started, "cpu": time.process_time() - self._cpu}
        report = {"tokens": tokens - self._tokens, **spent} if self._measuring else {}
        print("@" + json.dumps(report | {"peak": peak()}), flush=True)
        if sys.stdin.readline().strip() != "go":
            os._exit(0)
        self._left, self._measuring = self._steps, True
        self._tokens, self._started, self._cpu = tokens, time.perf_counter(), time.process_time()


def peak() -> int:
    """Bytes that were resident at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Process:
    """A contestant, as its opponents see it.

    Args:
        script: is run with the words contestant, `name`, `folder` and `arguments`.
        checkout: whose trainer is imported, where it is not this one.
    """

    def __init__(
        self, script: Path, name: str, folder: Path, arguments: Sequence[str], *, checkout: Path = ROOT
    ) -> None:
        self.name = name
        self.turns: list[dict[str, float]] = []
        environment = os.environ | {
            "PYTHONPATH": f"{checkout / 'operator'}:{checkout / 'trainer-image'}",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        self._log = open(folder / f"{name.replace(':', '-')}.log", "w")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, str(script), "contestant", name, str(folder), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )

    def report(self) -> dict[str, float]:
        """Wait for the end of its turn."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("@"):
                found: dict[str, float] = json.loads(line[1:])
                return found
            self._log.write(line)
        self._log.flush()
        raise SystemExit(f"{self.name} ended early:\n{Path(self._log.name).read_text()[-3000:]}")

    def turn(self) -> None:
        """Let it run its steps."""
        self._say("go")
        self.turns.append(self.report())

    def rate(self, clock: str) -> float:
        """Tokens per second of wall time (`seconds`) or of processor time (`cpu`), the middle one of all turns."""
        return statistics.median(t["tokens"] / t[clock] for t in self.turns)

    def end(self) -> None:
        """Not needed any more."""
        self._say("end")
        self._process.wait()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()


def contest(
    script: Path,
    names: Sequence[str],
    folder: Path,
    arguments: Sequence[str],
    *,
    rounds: int,
    before: Path | None = None,
) -> list[Process]:
    """Start all, and let them take turns. The one that is called `before` imports the trainer of that checkout."""
    processes: list[Process] = []
    for name in names:  # one after the other: while one warms up the others are not there yet, or asleep
        checkout = before if before is not None and name.partition(":")[0] == "before" else ROOT
        processes.append(Process(script, name, folder, arguments, checkout=checkout))
        processes[-1].report()
    for _ in range(rounds):
        for process in processes:
            process.turn()
    for process in processes:
        process.end()
    return processes


def print_table(processes: Sequence[Process], *, rounds: int, steps: int) -> None:
    """The first one beside each of the others."""
    first = processes[0]
    print(
        f"\n{rounds} rounds of {steps} steps each, in turns; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs\n\n"
        f"{'':16} {'tokens/s':>9} {'tokens per CPU second':>22} {'tokens/step':>12} {'peak memory':>12}   {first.name} is"
    )
    for process in processes:
        tokens = statistics.mean(t["tokens"] for t in process.turns) / steps
        print(
            f"{process.name:16} {process.rate('seconds'):9,.0f} {process.rate('cpu'):22,.0f} {tokens:12,.0f} "
            f"{process.turns[-1]['peak'] / 1e6:9,.0f} MB   {times(first, process, 'seconds'):.2f} times as fast, "
            f"by CPU time {times(first, process, 'cpu'):.2f}"
        )


def times(one: Process, other: Process, clock: str) -> float:
    """How many times as fast one is. Turn by turn, so that both halves of each quotient were measured one after the other."""
    pairs = zip(one.turns, other.turns, strict=True)
    return statistics.median((a["tokens"] / a[clock]) / (b["tokens"] / b[clock]) for a, b in pairs)
