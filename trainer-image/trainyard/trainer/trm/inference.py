"""Using a trained model: problems in, answers with their confidence out.

    model = TRMModel.load_from_checkpoint("work/model")
    model.reason("pod web-7d4b9c6f5-x2x8p is OOMKilled").answer

The model refines its answer step by step and may stop when its halting head believes that the answer is right. What the
head believes is the confidence. With noise, several attempts take different ways to an answer, and the one that the head
believes most is taken: more computation, no more training (Probabilistic Tiny Recursive Models, 2026).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from trainyard.trainer.errors import first_line
from trainyard.trainer.trm.fit import attention_mask
from trainyard.trainer.trm.model import Latent, Network
from trainyard.trainer.trm.puzzles import EMPTY_CELL
from trainyard.trainer.trm.shape import Shape, read_shape
from trainyard.trainer.trm.task import TASK_FILE, TEXT
from trainyard.trainer.trm.textdata import PAD, Codec
from trainyard.trainer.trm.texttask import TextExample, read_example

WEIGHTS_FILE = "model.safetensors"
CHECKPOINT_FILE = "model.ckpt"
"""The same weights as torch saves them, for scripts that ask for a file of this kind."""
Problem = str | Sequence[int]
"""A text, or a grid as ids; a Sudoku may be a text of digits with dots for empty cells."""


@dataclass(frozen=True)
class Step:
    """The answer after one iteration."""

    answer: str
    confidence: float


@dataclass(frozen=True)
class Reasoning:
    """What came out. `confidence` is the believed probability that the whole answer is right."""

    answer: str
    confidence: float
    steps: int
    trajectory: tuple[Step, ...] = field(default=(), repr=False)
    ids: tuple[int, ...] = field(default=(), repr=False)


class TRMModel:
    """A trained Tiny Recursive Model with its task and its tokenizer. Safe to use from several threads."""

    def __init__(self, network: Network, task: dict[str, Any], codec: Codec | None, *, device: torch.device) -> None:
        self.network = network.to(device).eval().requires_grad_(False)
        self.task = task
        self.codec = codec
        self._device = device

    @classmethod
    def load_from_checkpoint(cls, path: str | Path, *, device: str | None = None) -> TRMModel:
        """Load a `model/` folder, or its model.ckpt.

        Args:
            path: the folder, or the file with the rest of the folder beside it.
            device: cpu or cuda; by default a GPU if there is one.

        Raises:
            ValueError: the folder holds no such model.
        """
        given = Path(path)
        folder = given.parent if given.is_file() else given
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        shape, _ = read_shape(folder)
        network = Network(shape)
        network.load_state_dict(_of_torch(given) if given.suffix == ".ckpt" else load_file(folder / WEIGHTS_FILE))
        task = json.loads((folder / TASK_FILE).read_text())
        codec = Codec.load(folder / "tokenizer") if task["kind"] == TEXT else None
        return cls(network, task, codec, device=where)

    @property
    def shape(self) -> Shape:
        """Sizes and cycles."""
        return self.network.shape

    def reason(
        self,
        problem: Problem,
        max_iterations: int = 10,
        *,
        draft: str = "",
        attempts: int = 1,
        noise: float = 0.2,
        seed: int = 0,
    ) -> Reasoning:
        """Answer one problem; see `reason_all`."""
        return self.reason_all([problem], max_iterations, drafts=[draft], attempts=attempts, noise=noise, seed=seed)[0]

    @torch.no_grad()
    def reason_all(
        self,
        problems: Sequence[Problem],
        max_iterations: int = 10,
        *,
        drafts: Sequence[str] | None = None,
        attempts: int = 1,
        noise: float = 0.2,
        seed: int = 0,
    ) -> list[Reasoning]:
        """Answer several problems in one batch.

        Args:
            problems: texts or grids.
            max_iterations: most supervision steps; each problem stops earlier when the halting head says so.
            drafts: for texts, an initial answer for each problem, as the training data had them.
            attempts: with more than one, noise is added in all but the first, and the most believed answer is taken.
            noise: deviation of that noise, relative to latents of about one.
            seed: of the noise.

        Raises:
            ValueError: a problem is not of this model's kind or length.
        """
        if max_iterations < 1 or attempts < 1:
            raise ValueError("max_iterations and attempts must be at least 1")
        examples = [self._read(p, d) for p, d in zip(problems, drafts or [""] * len(problems), strict=True)]
        ids = np.array([given for given, _ in examples], dtype=np.int64)
        generator = torch.Generator().manual_seed(seed)
        best: list[tuple[float, list[NDArray[np.int64]], list[float]] | None] = [None] * len(examples)
        for attempt in range(attempts):
            answers, logits = self._walk(ids, max_iterations, noise=noise if attempt else 0.0, generator=generator)
            for place in range(len(examples)):
                # The first step at which the head says yes is the end of the walk.
                walked = next((n for n, belief in enumerate(logits, start=1) if belief[place] > 0), len(logits))
                belief = float(logits[walked - 1][place])
                known = best[place]
                if known is None or belief > known[0]:
                    best[place] = (
                        belief, [a[place] for a in answers[:walked]], [float(b[place]) for b in logits[:walked]],
                    )  # fmt: skip
        return [
            self._reasoning(example, *found[1:]) for (_, example), found in zip(examples, best, strict=True) if found
        ]

    def _walk(
        self, ids: NDArray[np.int64], iterations: int, *, noise: float, generator: torch.Generator
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.float32]]]:
        """Answers and halting logits after every iteration, until all problems have halted."""
        network = self.network
        inputs = torch.from_numpy(ids).to(self._device)
        rows = network.puzzle_embedding[torch.zeros(len(ids), dtype=torch.long, device=self._device)]
        x = network.embed(inputs, rows)
        mask = attention_mask(inputs, network.shape, padding=PAD) if self.codec is not None else None
        weights = network.weights()
        latent = network.start(len(ids))
        answers, beliefs = [], []
        halted = np.zeros(len(ids), dtype=bool)
        for _ in range(iterations):
            if noise:
                latent = Latent(
                    *(t + noise * torch.randn(t.shape, generator=generator).to(t.device, t.dtype) for t in latent)
                )
            latent, logits, halting = network.step(latent, x, mask=mask, weights=weights)
            answers.append(logits.argmax(-1).t().cpu().numpy())
            beliefs.append(halting[:, 0].float().cpu().numpy())
            halted |= beliefs[-1] > 0
            if halted.all():
                break
        return answers, beliefs

    def _read(self, problem: Problem, draft: str) -> tuple[Sequence[int], TextExample | None]:
        length = self.shape.sequence_length
        if self.codec is not None:
            if not isinstance(problem, str):
                raise ValueError("this model reads texts: give the problem as one")
            example = read_example(problem, draft, "")
            given = self.codec.inputs(example)
            if given is None:
                raise ValueError(f"the problem is longer than the {length} tokens that this model was trained for")
            return given, example
        if isinstance(problem, str):
            problem = self._cells(problem)
        if len(problem) != length or not all(0 <= int(i) < self.shape.vocab_size for i in problem):
            raise ValueError(f"this model reads grids of {length} ids from 0 to {self.shape.vocab_size - 1}")
        return [int(i) for i in problem], None

    def _cells(self, text: str) -> list[int]:
        """A Sudoku as people write it; white space between rows is allowed."""
        if self.task["kind"] != "Sudoku":
            raise ValueError(f"a problem of kind {self.task['kind']} is a list of ids")
        return [int(c) + 1 if c.isdigit() and c != "0" else EMPTY_CELL for c in "".join(text.split())]

    def _reasoning(
        self, example: TextExample | None, answers: list[NDArray[np.int64]], logits: list[float]
    ) -> Reasoning:
        steps = tuple(
            Step(self._text(ids, example), _probability(logit)) for ids, logit in zip(answers, logits, strict=True)
        )
        return Reasoning(
            answer=steps[-1].answer,
            confidence=steps[-1].confidence,
            steps=len(steps),
            trajectory=steps,
            ids=tuple(int(i) for i in answers[-1]),
        )

    def _text(self, ids: NDArray[np.int64], example: TextExample | None) -> str:
        if self.codec is not None and example is not None:
            return self.codec.read(ids.tolist(), example)
        if self.task["kind"] == "Sudoku":
            return "".join(str(max(0, int(i) - 1)) for i in ids)
        return " ".join(str(int(i)) for i in ids)


def _probability(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(logit, -60, 60))))


def _of_torch(file: Path) -> dict[str, torch.Tensor]:
    """The weights in a file of torch's own; never anything that runs."""
    try:
        found: dict[str, torch.Tensor] = torch.load(file, weights_only=True, map_location="cpu")["state_dict"]
    except (OSError, RuntimeError, pickle.UnpicklingError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read as weights: {first_line(error)}") from error
    return found
