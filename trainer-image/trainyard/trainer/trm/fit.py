"""The training loop: one optimizer step is one supervision step of every slot.

A batch is a row of slots. Each holds an example and the latent that the network has reached on it so far. A step refines
all of them once, learns from all of them, and then asks the halting head which ones are done; those slots are given new
examples. So easy examples make room soon and hard ones stay, up to the limit.

    fill halted slots -> step -> loss -> backward -> optimizers -> average -> which slots halt?

Everything that is drawn at random depends on the seed and on the position alone, never on a generator's history. What a
continuation needs is therefore: weights, averages, optimizer moments, slots, and two numbers.

Several processes share the slots. All of them know which example each slot holds and draw the same ones; each has the
latents of its own slots, and learns from those. One exchange a step then adds up the gradients and tells how every slot
has done, so that all take the same decisions, and the training is that of one process up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainyard.trainer.machine.team import ALONE, Team
from trainyard.trainer.trm.folder import Draw
from trainyard.trainer.trm.losses import Loss, judge
from trainyard.trainer.trm.model import Depth, Latent, Network
from trainyard.trainer.trm.optim import Average, adamw, scheduled, sign_step
from trainyard.trainer.trm.shape import Shape
from trainyard.trainer.trm.stream import Stream

CURRICULUM = ((0.3, 3), (0.6, 1.5), (1.0, 1.0))
"""Until this share of the training, cycles are divided by this: (2,1), then (4,2), then (6,3) of the usual 6 and 3."""


@dataclass(frozen=True)
class Recipe:
    """How it is trained. `chunk` is the number of slots that pass through the network together."""

    steps: int
    batch: int
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    warmup: float = 0
    schedule: str = "constant"
    max_grad_norm: float = 1.0
    puzzle_learning_rate: float = 1e-2
    average: float = 0.999
    loss: Loss = "StableMax"
    exploration: float = 0.1
    depth_curriculum: bool = False
    seed: int = 0
    chunk: int | None = None
    compile: bool = False
    masked: int | None = None
    """Id of padding that nothing may look at; None if grids are full."""


@dataclass(frozen=True)
class Report:
    """One step. Shares are over the slots that halted in it, None if none did."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    halted: int
    token_accuracy: float | None
    exact: float | None
    iterations: float | None


@dataclass
class Slots:
    """The examples under way. `iterations` counts supervision steps, `halted` marks slots to be filled. `own` are the slots
    of this process: the latents are of these alone, all else is of all slots."""

    latent: Latent
    draw: Draw
    iterations: NDArray[np.int64]
    halted: NDArray[np.bool_]
    own: slice

    @classmethod
    def empty(cls, network: Network, count: int, *, device: torch.device, team: Team = ALONE) -> Slots:
        """All halted, so that the first step fills them."""
        length = network.shape.sequence_length
        ids = np.zeros((count, length), dtype=np.int64)
        each = count // team.size
        return cls(
            Latent(*(t.to(device) for t in network.start(each))),
            Draw(ids, ids.copy(), np.zeros(count, dtype=np.int64)),
            np.zeros(count, dtype=np.int64),
            np.ones(count, dtype=bool),
            slice(team.rank * each, (team.rank + 1) * each),
        )

    def fill(self, network: Network, stream: Stream) -> None:
        """Give new examples and fresh latents to the halted slots."""
        free = np.flatnonzero(self.halted)
        if not len(free):
            return
        new = stream.draw(len(free))
        self.draw.inputs[free], self.draw.labels[free], self.draw.puzzles[free] = new.inputs, new.labels, new.puzzles
        own = free[(free >= self.own.start) & (free < self.own.stop)] - self.own.start
        where = torch.from_numpy(own).to(self.latent.h.device)
        self.latent.h[:, where] = network.start_h.to(network.dtype)
        self.latent.z[:, where] = network.start_z.to(network.dtype)
        self.iterations[free] = 0
        self.halted[:] = False


@dataclass
class Fit:
    """A training under way. `step` counts optimizer steps done."""

    network: Network
    stream: Stream
    recipe: Recipe
    device: torch.device
    team: Team = ALONE
    step: int = 0
    whole: bool = True
    """False while weights and slots are of no step at all: an optimizer step is under way."""
    optimizer: torch.optim.AdamW = field(init=False)
    average: Average = field(init=False)
    slots: Slots = field(init=False)

    def __post_init__(self) -> None:
        self.optimizer = adamw(
            self.network, learning_rate=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        self.average = Average(self.network, decay=self.recipe.average)
        self.slots = Slots.empty(self.network, self.recipe.batch, device=self.device, team=self.team)
        self._step_of_network: Any = torch.compile(self.network.step) if self.recipe.compile else self.network.step

    def run(self) -> Iterator[Report]:
        """Train to the last step, one report a step. Stop by not asking for the next one."""
        while self.step < self.recipe.steps:
            yield self.one_step()

    def one_step(self) -> Report:
        """One optimizer step."""
        recipe, network, slots = self.recipe, self.network, self.slots
        self.whole = False
        slots.fill(network, self.stream)
        self.whole = True  # filled slots are not filled again
        rate = recipe.learning_rate * scheduled(
            self.step, total=recipe.steps, warmup=recipe.warmup, kind=recipe.schedule
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        depth = depth_at(self.step, recipe, network.shape)
        rows = torch.from_numpy(slots.draw.puzzles).to(self.device)
        embeddings = network.puzzle_embedding[rows[slots.own]].requires_grad_()
        own_inputs, own_labels = slots.draw.inputs[slots.own], slots.draw.labels[slots.own]
        weights = network.weights()
        latents: list[Latent] = []
        losses: list[Tensor] = []
        wants_to_halt: list[Tensor] = []
        right: list[Tensor] = []
        solved: list[Tensor] = []
        # 16-bit copies of the weights are shared by all chunks, so their graph has to last until the last one.
        shared = network.dtype != torch.float32
        chunks = list(self._chunks())
        for number, part in enumerate(chunks):
            inputs = torch.from_numpy(own_inputs[part]).to(self.device)
            labels = torch.from_numpy(own_labels[part]).to(self.device)
            mask = None if recipe.masked is None else attention_mask(inputs, network.shape, padding=recipe.masked)
            latent, logits, halting = self._step_of_network(
                Latent(slots.latent.h[:, part], slots.latent.z[:, part]),
                network.embed(inputs, embeddings[part]),
                mask=mask,
                depth=depth,
                weights=weights,
            )
            judged = judge(logits, halting, labels, loss=recipe.loss)
            torch.autograd.backward(judged.loss / recipe.batch, retain_graph=shared and number < len(chunks) - 1)
            latents.append(Latent(latent.h.detach(), latent.z.detach()))
            losses.append(judged.loss.detach())
            wants_to_halt.append(halting.detach()[:, 0] > 0)
            right.append(judged.right_tokens)
            solved.append(judged.solved)
        loss = torch.stack(losses).sum()
        of_slots = [torch.cat(values) for values in (wants_to_halt, right, solved)]
        gradients = embeddings.grad
        if self.team.size > 1:
            loss, of_slots, gradients = self._together(loss, of_slots, gradients)
        self.whole = False
        for part, latent in zip(chunks, latents, strict=True):
            slots.latent.h[:, part], slots.latent.z[:, part] = latent
        norm = self._update(gradients, rows, rate)
        report = self._halt(rate, norm, loss, *of_slots)
        self.whole = True
        return report

    @property
    def together(self) -> int:
        """How many slots pass through the network at a time."""
        return max(int(part.stop - part.start) for part in self._chunks())

    def _chunks(self) -> Iterator[slice]:
        """Equal parts of this process's slots, none above the chunk."""
        count = self.slots.own.stop - self.slots.own.start
        parts = -(-count // (self.recipe.chunk or count))
        for number in range(parts):
            yield slice(number * count // parts, (number + 1) * count // parts)

    def _together(
        self, loss: Tensor, judged: list[Tensor], gradients: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor | None]:
        """The same of the slots of all processes, and the weights' gradients too. The loss was divided by the whole batch, so
        they add up."""

        def among_all(values: Tensor) -> Tensor:
            whole = values.new_zeros(self.recipe.batch, *values.shape[1:])
            whole[self.slots.own] = values
            return whole

        trained = [p for p in self.network.parameters() if p.grad is not None]
        given = [loss, *map(among_all, judged), *(p.grad for p in trained if p.grad is not None)]
        if gradients is not None:
            given.append(among_all(gradients))
        loss, *found = self.team.added(*given)
        judged, found = found[: len(judged)], found[len(judged) :]
        for parameter, gradient in zip(trained, found, strict=False):
            parameter.grad = gradient
        return loss, judged, None if gradients is None else found[-1]

    def _update(self, gradients: Tensor | None, rows: Tensor, rate: float) -> float:
        limit = self.recipe.max_grad_norm or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if gradients is not None:
            sign_step(
                self.network.puzzle_embedding,
                rows,
                gradients,
                learning_rate=self.recipe.puzzle_learning_rate * rate / self.recipe.learning_rate,
                weight_decay=self.recipe.weight_decay,
            )
        self.average.update(self.step)
        return float(norm)

    def _halt(
        self,
        rate: float,
        norm: float,
        loss: Tensor,
        wants_to_halt: Tensor,
        right: Tensor,
        solved: Tensor,
    ) -> Report:
        recipe, slots = self.recipe, self.slots
        limit = self.network.shape.max_iterations
        slots.iterations += 1
        done = slots.iterations >= limit
        if limit > 1:
            # Some slots have to go on for a while even if they believe to be done: the halting head learns from them.
            rng = np.random.default_rng([recipe.seed, 2, self.step])
            explores = rng.random(recipe.batch) < recipe.exploration
            least = explores * rng.integers(2, limit + 1, size=recipe.batch)
            done |= wants_to_halt.cpu().numpy() & (slots.iterations >= least)
        slots.halted = done
        self.step += 1
        count = int(done.sum())

        def share(values: Tensor) -> float | None:
            return float(values.cpu().numpy()[done].mean()) if count else None

        return Report(
            step=self.step,
            loss=float(loss) / recipe.batch,
            learning_rate=rate,
            grad_norm=norm,
            halted=count,
            token_accuracy=share(right),
            exact=share(solved),
            iterations=float(slots.iterations[done].mean()) if count else None,
        )


def depth_at(step: int, recipe: Recipe, shape: Shape) -> Depth:
    """Cycles at a step: all of them, or fewer in the beginning."""
    full = Depth(shape.h_cycles, shape.l_cycles)
    if not recipe.depth_curriculum:
        return full
    divisor = next(d for end, d in CURRICULUM if step < end * recipe.steps or end >= 1)
    return Depth(max(1, round(full.h_cycles / divisor)), max(1, round(full.l_cycles / divisor)))


def attention_mask(inputs: Tensor, shape: Shape, *, padding: int) -> Tensor:
    """[examples, 1, 1, positions]: registers and everything that is not padding may be looked at."""
    seen = inputs != padding
    registers = seen.new_ones(len(inputs), shape.registers)
    return torch.cat((registers, seen), 1)[:, None, None, :]


def cache_sized_chunk(shape: Shape, *, budget: int = 4 << 20) -> int:
    """Slots whose widest activation stays in `budget` bytes, about what a CPU's caches hold. Much smaller ones do not pay:
    calling an operation costs as much as a small one takes."""
    widest = 2 * shape.inner(shape.hidden_size) * shape.positions
    if shape.mixer == "MLP":
        widest = max(widest, 2 * shape.inner(shape.positions) * shape.hidden_size)
    return max(1, budget // (4 * widest))
