"""Tiny Recursive Models beside the published code, which is not part of this repository.

    python benchmarks/trm.py speed --published DIR        optimizer steps per second of the processor, and time to equal loss
    python benchmarks/trm.py agree --published DIR        logits, loss and gradients of one step, in 32 and in 64 bits
    python benchmarks/trm.py attempts --work DIR          exact answers against the number of attempts with noise

DIR is a clone of TinyRecursiveModels (the code of "Less is More: Recursive Reasoning with Tiny Networks"); it needs einops.
Both sides run in one process on one thread and take turns step by step, with the same Sudokus, batch, learning rate,
decay, clipping and average, and both with memory that is kept between steps. Seconds are those of the processor, so other
work on the machine slows both. The published code is eager, with torch's own AdamW.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainyard.trainer.device import keep_freed_memory
from trainyard.trainer.trm.augment import sudoku_forms
from trainyard.trainer.trm.fit import Fit, Recipe, cache_sized_chunk
from trainyard.trainer.trm.folder import Split, flat_split
from trainyard.trainer.trm.losses import judge
from trainyard.trainer.trm.model import Latent, Network
from trainyard.trainer.trm.puzzles import sudoku
from trainyard.trainer.trm.shape import Shape
from trainyard.trainer.trm.stream import Stream

BATCH = 32
PUBLISHED_ALIGNMENT = 256
RATE, DECAY, AVERAGE = 1.5e-3, 0.1, 0.995
WINDOW = 20
"""Steps that a loss is averaged over."""


def published(shape: Shape, *, batch: int) -> Any:
    """The published network with its loss, of a shape whose inner widths it can have."""
    from models.losses import ACTLossHead  # type: ignore[import-not-found]
    from models.recursive_reasoning.trm import TinyRecursiveReasoningModel_ACTV1  # type: ignore[import-not-found]

    settings = {
        "batch_size": batch,
        "seq_len": shape.sequence_length,
        "puzzle_emb_ndim": shape.hidden_size,
        "num_puzzle_identifiers": shape.puzzles,
        "vocab_size": shape.vocab_size,
        "H_cycles": shape.h_cycles,
        "L_cycles": shape.l_cycles,
        "H_layers": 0,
        "L_layers": shape.l_layers,
        "hidden_size": shape.hidden_size,
        "expansion": shape.expansion,
        "num_heads": shape.num_heads,
        "pos_encodings": "rope" if shape.mixer == "Attention" else "none",
        "halt_max_steps": shape.max_iterations,
        "halt_exploration_prob": 0.1,
        "forward_dtype": "float32",
        "mlp_t": shape.mixer == "MLP",
        "puzzle_emb_len": shape.registers,
    }
    return ACTLossHead(TinyRecursiveReasoningModel_ACTV1(settings), "stablemax_cross_entropy").train()


class Theirs:
    """Training by the published code."""

    def __init__(self, shape: Shape, stream: Stream) -> None:
        from models.ema import EMAHelper  # type: ignore[import-not-found]

        self.head = published(shape, batch=BATCH)
        self.stream = stream
        self.optimizer = torch.optim.AdamW(self.head.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=DECAY)
        self.average = EMAHelper(mu=AVERAGE)
        self.average.register(self.head)
        self.carry = self.head.initial_carry(self._batch())

    def step(self) -> float:
        """One optimizer step; its loss per example."""
        self.carry, loss, _, _, _ = self.head(return_keys=[], carry=self.carry, batch=self._batch())
        (loss / BATCH).backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update(self.head)
        return loss.item() / BATCH

    def _batch(self) -> dict[str, Tensor]:
        draw = self.stream.draw(BATCH)
        return {
            "inputs": torch.from_numpy(draw.inputs).int(),
            "labels": torch.from_numpy(draw.labels),
            "puzzle_identifiers": torch.zeros(BATCH, dtype=torch.int32),
        }


def our_fit(shape: Shape, stream: Stream, *, chunk: int | None) -> Fit:
    """The same training by this repository."""
    recipe = Recipe(
        steps=1_000_000,
        batch=BATCH,
        learning_rate=RATE,
        weight_decay=DECAY,
        average=AVERAGE,
        chunk=chunk or cache_sized_chunk(shape),
    )
    return Fit(Network(shape), stream, recipe, torch.device("cpu"))


def speed(options: argparse.Namespace) -> None:
    """Steps of both in turn."""
    keep_freed_memory()
    side = options.side
    split = sudokus(side)
    h_cycles, l_cycles = options.cycles

    def shape(alignment: int) -> Shape:
        return Shape(
            vocab_size=side + 2,
            sequence_length=side * side,
            hidden_size=options.width,
            num_heads=2,
            h_cycles=h_cycles,
            l_cycles=l_cycles,
            registers=1,
            mixer=options.mixer,
            max_iterations=8,
            inner_alignment=alignment,
        )

    def stream() -> Stream:
        return Stream(split, seed=0, augment=sudoku_forms(side))

    torch.manual_seed(options.seed)
    theirs = Theirs(shape(PUBLISHED_ALIGNMENT), stream())
    torch.manual_seed(options.seed)
    ours = our_fit(shape(options.inner), stream(), chunk=options.chunk)
    sides = {"published": theirs.step, "trainyard": lambda: ours.one_step().loss}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    losses: dict[str, list[float]] = {name: [] for name in sides}
    for step in range(1, options.steps + 1):
        for name, one_step in sides.items():
            if options.until and recent(losses[name]) <= options.until:
                continue
            before = time.process_time()
            losses[name].append(one_step())
            seconds[name].append(time.process_time() - before)
        if step % WINDOW == 0:
            told = (f"{name}: {sum(seconds[name]):.1f} s, loss {recent(losses[name]):.3f}" for name in sides)
            print(f"step {step}  " + "  ".join(told), flush=True)
        if options.until and all(recent(known) <= options.until for known in losses.values()):
            break
    for name in sides:
        reached = recent(losses[name])
        print(
            f"{name}: {1 / statistics.median(seconds[name]):.2f} steps/s (median), {len(losses[name])} steps, "
            f"{sum(seconds[name]):.1f} s, loss {reached:.3f}"
        )
    print(f"per step (median) {ratio(statistics.median, seconds):.2f} x, in all {ratio(sum, seconds):.2f} x")


def ratio(of: Any, seconds: dict[str, list[float]]) -> float:
    """How many times as long the published code takes."""
    return float(of(seconds["published"]) / of(seconds["trainyard"]))


def recent(losses: list[float]) -> float:
    """Mean of the last steps; infinite before there are enough."""
    return statistics.fmean(losses[-WINDOW:]) if len(losses) >= WINDOW else float("inf")


def sudokus(side: int) -> Split:
    """Some Sudokus; training makes other forms of them."""
    made = sudoku(side, 40, 1)
    return flat_split(np.stack([p.given for p in made]), np.stack([p.wanted for p in made]), vocab_size=side + 2)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed")
    command.set_defaults(run=speed)
    command.add_argument("--published", type=Path, required=True)
    command.add_argument("--side", type=int, default=4, help="4, 6 or 9")
    command.add_argument("--width", type=int, default=64)
    command.add_argument("--cycles", type=int, nargs=2, default=(2, 2))
    command.add_argument("--mixer", choices=("MLP", "Attention"), default="MLP")
    command.add_argument(
        "--inner", type=int, default=32, help="what our inner widths are rounded up to; 256 as published"
    )
    command.add_argument("--chunk", type=int, help="slots that pass through our network together")
    command.add_argument("--steps", type=int, default=60)
    command.add_argument("--until", type=float, help="stop each side at this loss (mean of the last 20 steps)")
    command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "published" in options:
        sys.path.insert(0, str(options.published))
    options.run(options)


if __name__ == "__main__":
    main()
