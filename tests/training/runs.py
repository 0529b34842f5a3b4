"""Runs of the trainer as real processes, on models so small that a step takes milliseconds."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainyard.api.exitcodes import ExitCode

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LIMIT = 240
"""Seconds until a step counts as hanging; other work may share the machine."""


def tiny_spec() -> dict[str, Any]:
    """A pretraining of 30 steps over some four epochs, with dropout, accumulation and evaluations in between: everything
    that an exact continuation has to get right."""
    text = "\n\n".join(
        f"paragraph {n}: the train number {n * n % 97} stops at station {n % 7} and waits {n % 5} minutes for the other one"
        for n in range(120)
    )
    return {
        "model": {
            "scratch": {
                "architecture": "llama",
                "config": {
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 4,
                    "attention_dropout": 0.1,
                },
                "tokenizer": {"trainVocabSize": 400},
            }
        },
        "datasets": [{"name": "stations", "inline": {"text": text}, "split": {"eval": 0.1}}],
        "training": {
            "method": "Pretrain",
            "maxSteps": 30,
            "maxLength": 64,
            "perDeviceTrainBatchSize": 4,
            "gradientAccumulationSteps": 2,
            "learningRate": 3e-3,
            "lrSchedulerType": "cosine",
            "warmupSteps": 3,
            "loggingSteps": 4,
            "evalSteps": 7,
            "precision": "FP32",
        },
        "checkpoints": {"everySteps": 5},
    }


class Zygote:
    """See zygote.py."""

    def __init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer-image'}",
            "OMP_NUM_THREADS": "1",
            "RAYON_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "GOMP_SPINCOUNT": "0",
        }
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._answer() == "ready"

    def start(self, request: dict[str, Any]) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return int(self._answer())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass
class Step:
    """A running step: its output line by line, its end."""

    pid: int
    output: Path
    exit: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pidfd = os.pidfd_open(self.pid)
        self._stream = open(self.output)  # noqa: SIM115 - closed by wait()

    def wait_for_line(self, wanted: Callable[[str], bool]) -> str:
        """Read on until a line matches."""
        for line in self._stream:
            self.lines.append(line.rstrip("\n"))
            if wanted(self.lines[-1]):
                return self.lines[-1]
        raise AssertionError("the step ended before the line came:\n" + "\n".join(self.lines))

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; minus the signal if one ended it."""
        self.lines += [line.rstrip("\n") for line in self._stream]
        self._stream.close()
        ready, _, _ = select.select([self._pidfd], [], [], LIMIT)
        os.close(self._pidfd)
        if not ready:
            self.kill()
            raise AssertionError("the step hangs:\n" + "\n".join(self.lines))
        while not self.exit.exists():  # the process is gone, its parent is about to write this file
            os.sched_yield()
        return int(self.exit.read_text())


@dataclass
class Run:
    """One run with its own volume."""

    zygote: Zygote
    folder: Path
    spec: dict[str, Any]
    name: str = "tiny"
    environment: dict[str, str] = field(default_factory=dict)
    patch: str = ""
    """Python code that the step's process runs first."""
    labels: dict[str, str] = field(default_factory=dict)
    _number: Iterator[int] = field(default_factory=itertools.count)

    @property
    def work(self) -> Path:
        return self.folder / "volume" / f"{self.name}-0a1b2c3d"

    def start(self, step: str) -> Step:
        self.folder.mkdir(parents=True, exist_ok=True)
        number = next(self._number)
        run_file = self.folder / "run.json"
        manifest = {
            "apiVersion": "trainyard.dev/v1alpha1",
            "kind": "TrainingRun",
            "metadata": {"name": self.name, "uid": "0a1b2c3d-0000-4000-8000-000000000000", "labels": self.labels},
            "spec": self.spec,
        }
        run_file.write_text(json.dumps(manifest))
        output = self.folder / f"{self.name}-output-{number}"
        os.mkfifo(output)
        exit_file = self.folder / f"{self.name}-exit-{number}"
        environment = {
            "TRAINYARD_RUN_FILE": str(run_file),
            "TRAINYARD_WORK_DIR": str(self.work),
            "TRAINYARD_VOLUMES_DIR": str(self.folder / "volumes"),
            "TRAINYARD_SECRETS_DIR": str(self.folder / "secrets"),
            "TRAINYARD_CACHE_DIR": str(self.folder / "cache"),
            "TRAINYARD_TERMINATION_LOG": str(self.folder / "termination"),
            "TRAINYARD_ATTEMPT": str(number + 1),
            **self.environment,
        }
        pid = self.zygote.start(
            {
                "step": step,
                "environment": environment,
                "output": str(output),
                "exit": str(exit_file),
                "patch": self.patch,
            }
        )
        return Step(pid, output, exit_file)

    def run(self, step: str, *, expect: int = 0) -> Step:
        """Run a step to its end."""
        started = self.start(step)
        code = started.wait()
        assert code == expect, f"{step} ended with {code}:\n" + "\n".join(started.lines)
        return started

    def stop(self, at: str) -> None:
        """Train, and tell it to stop when a line begins so."""
        started = self.start("train")
        started.wait_for_line(lambda line: line.startswith(at))
        started.kill(signal.SIGTERM)
        assert started.wait() == ExitCode.RESUME, "\n".join(started.lines)

    @property
    def final_record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.folder / "termination").read_text())
        return record

    @property
    def model_digest(self) -> str:
        return hashlib.sha256((self.work / "model" / "model.safetensors").read_bytes()).hexdigest()

    def fork(self, folder: Path) -> Run:
        """A copy with the same prepared data and the same name."""
        other = Run(self.zygote, folder, copy.deepcopy(self.spec), self.name)
        for name in ("data", "dataset"):  # prepared, and what it was prepared from, which the model's card tells of
            if (self.work / name).exists():
                shutil.copytree(self.work / name, other.work / name, symlinks=True, dirs_exist_ok=True)
        return other

    @property
    def checkpoints(self) -> list[str]:
        return sorted(p.name for p in (self.work / "checkpoints").iterdir())
