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
import json
import statistics
import sys
import time
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from trainyard.trainer.machine.device import keep_freed_memory
from trainyard.trainer.trm.augment import sudoku_forms
from trainyard.trainer.trm.fit import Fit, Recipe, cache_sized_chunk
from trainyard.trainer.trm.folder import Split, flat_split, read_split
from trainyard.trainer.trm.inference import WEIGHTS_FILE, TRMModel
from trainyard.trainer.trm.losses import judge
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.puzzles import sudoku
from trainyard.trainer.trm.shape import Shape, read_shape
from trainyard.trainer.trm.stream import Stream, take
from trainyard.trainer.trm.task import TASK_FILE

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


def agree(options: argparse.Namespace) -> None:
    """One supervision step of both with the same weights and input, in 32 and in 64 bits."""
    print("largest difference of logits; of loss and of gradients, relative")
    for mixer in ("MLP", "Attention"):
        for cycles in ((1, 1), (2, 2), (3, 6)):
            for dtype in (torch.float32, torch.float64):
                # The published code computes norms and halting logits in 32 bits whatever it is given: here in `dtype`.
                for module in ("layers", "recursive_reasoning.trm"):
                    known = vars(torch) | {"float32": dtype}
                    vars(import_module(f"models.{module}"))["torch"] = SimpleNamespace(**known)
                found = compared(mixer, cycles, dtype)
                print(f"{mixer} {cycles[0]} x {cycles[1]} {str(dtype)[6:]}: {found}", flush=True)


def compared(mixer: Any, cycles: tuple[int, int], dtype: torch.dtype) -> str:
    """The differences in words."""
    torch.manual_seed(0)
    shape = Shape(
        vocab_size=11,
        sequence_length=36,
        puzzles=3,
        hidden_size=128,
        num_heads=4,
        h_cycles=cycles[0],
        l_cycles=cycles[1],
        mixer=mixer,
        inner_alignment=PUBLISHED_ALIGNMENT,
    )
    head = published(shape, batch=8).to(dtype)
    ours = Network(shape).to(dtype)
    inner = head.model.inner
    with torch.no_grad():
        inner.q_head.weight.normal_(std=0.05)
        inner.puzzle_emb.weights.normal_(std=0.1)
        pairs = corresponding(inner, ours)
        for theirs, own in pairs:
            own.copy_(theirs)
        for name, value in (
            ("puzzle_embedding", inner.puzzle_emb.weights),
            ("start_h", inner.H_init),
            ("start_z", inner.L_init),
        ):
            getattr(ours, name).copy_(value)
    ours.dtype = dtype
    if mixer == "Attention":
        half = inner.rotary_emb.cos_cached.shape[-1] // 2
        ours.cosine.copy_(inner.rotary_emb.cos_cached[:, :half].view_as(ours.cosine))
        ours.sine.copy_(inner.rotary_emb.sin_cached[:, :half].view_as(ours.sine))
    inner.forward_dtype = inner.embed_tokens.cast_to = inner.puzzle_emb.cast_to = dtype
    inner.puzzle_emb.local_weights = inner.puzzle_emb.local_weights.detach().requires_grad_()
    inputs, labels = torch.randint(1, 11, (8, 36)), torch.randint(2, 11, (8, 36))
    labels[:, ::5] = -100
    puzzles = torch.randint(0, 3, (8,))
    batch = {"inputs": inputs.int(), "labels": labels, "puzzle_identifiers": puzzles.int()}
    carry = head.initial_carry(batch)
    _, loss, _, outputs, _ = head(return_keys=["logits"], carry=carry, batch=batch)
    loss.backward()
    rows = ours.puzzle_embedding[puzzles].clone().requires_grad_()
    _, logits, halting = ours.step(ours.start(8), ours.embed(inputs, rows))
    judged = judge(logits, halting, labels, loss="StableMax")
    judged.loss.backward()
    gradients = [(a.grad, b.grad) for a, b in pairs] + [(inner.puzzle_emb.local_weights.grad, rows.grad)]
    return "logits {:.1e}, loss {:.1e}, gradients {:.1e}".format(
        float((outputs["logits"] - logits.detach().transpose(0, 1)).abs().max()),
        abs(loss.item() / judged.loss.item() - 1),
        max(float((a - b).norm() / a.norm()) for a, b in gradients),
    )


def corresponding(inner: Any, ours: Network) -> list[tuple[Tensor, Tensor]]:
    """Parameters of the published network, each with ours."""
    pairs = [
        (inner.embed_tokens.embedding_weight, ours.token_embedding),
        (inner.lm_head.weight, ours.head),
        (inner.q_head.weight, ours.halting_weight),
        (inner.q_head.bias, ours.halting_bias),
    ]
    for theirs, own in zip(inner.L_level.layers, ours.layers, strict=True):
        if hasattr(theirs, "mlp_t"):
            pairs += [(theirs.mlp_t.gate_up_proj.weight, own.mix_in), (theirs.mlp_t.down_proj.weight, own.mix_out)]
        else:
            pairs += [(theirs.self_attn.qkv_proj.weight, own.qkv), (theirs.self_attn.o_proj.weight, own.out)]
        pairs += [(theirs.mlp.gate_up_proj.weight, own.mlp_in), (theirs.mlp.down_proj.weight, own.mlp_out)]
    return pairs


def attempts(options: argparse.Namespace) -> None:
    """Best of several attempts with noise, at every checkpoint of a run of `trainyard run --local`."""
    held_out = read_split(options.work / "data" / "eval", name="eval")
    task = json.loads((options.work / "data" / TASK_FILE).read_text())
    draw = take(held_out, np.arange(min(len(held_out), options.limit)))
    for folder in sorted((options.checkpoints or options.work / "checkpoints").glob("step-*")):
        network = Network(read_shape(options.work / "model")[0])
        network.load_state_dict(load_file(options.work / "model" / WEIGHTS_FILE))
        network.load_state_dict(load_file(folder / "average.safetensors"), strict=False)
        model = TRMModel(network, task, None, device=torch.device("cpu"))
        for noise in options.noise:
            shares = []
            for count in options.attempts:
                began = time.process_time()
                found = model.reason_all(draw.inputs.tolist(), options.iterations, attempts=count, noise=noise)
                exact = np.mean([tuple(row) == f.ids for row, f in zip(draw.labels.tolist(), found, strict=True)])
                shares.append(f"{count}: {exact:.1%} ({time.process_time() - began:.0f} s)")
            print(f"{folder.name}  noise {noise}  " + "  ".join(shares), flush=True)


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
    command = commands.add_parser("agree")
    command.set_defaults(run=agree)
    command.add_argument("--published", type=Path, required=True)
    command = commands.add_parser("attempts")
    command.set_defaults(run=attempts)
    command.add_argument("--work", type=Path, required=True, help="the run's folder with data/ and model/")
    command.add_argument("--checkpoints", type=Path, help="folder with step-*; that of the run if left out")
    command.add_argument("--noise", type=float, nargs="+", default=(0.1, 0.3))
    command.add_argument("--attempts", type=int, nargs="+", default=(1, 4, 16))
    command.add_argument("--iterations", type=int, default=8)
    command.add_argument("--limit", type=int, default=250, help="held-out puzzles")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "published" in options:
        sys.path.insert(0, str(options.published))
    options.run(options)


if __name__ == "__main__":
    main()
