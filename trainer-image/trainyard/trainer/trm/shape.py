"""What a Tiny Recursive Model looks like: every number that decides the shapes of its weights and its computation.

It is stored as `config.json` beside the weights, so a checkpoint can be loaded without the manifest it came from. No torch
in here: prepare and validate need the sizes, not the network.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

Mixer = Literal["Attention", "MLP"]
ARCHITECTURE = "trm"
CONFIG_FILE = "config.json"
ALIGNMENT = 32
"""Inner sizes are rounded up to a multiple of this, which vector units like. Published weights use 256."""


@dataclass(frozen=True)
class Shape:
    """Sizes and cycles. `positions` is the length that the network works on: registers first, then the sequence."""

    vocab_size: int
    sequence_length: int
    puzzles: int = 1
    """Rows of the table of puzzle embeddings. One row means that all examples share it."""
    hidden_size: int = 512
    num_heads: int = 8
    expansion: float = 4.0
    l_layers: int = 2
    h_cycles: int = 3
    l_cycles: int = 6
    mixer: Mixer = "Attention"
    registers: int = 16
    """Positions before the sequence. The first one carries the puzzle embedding, and the halting head reads it."""
    max_iterations: int = 16
    """Supervision steps an example gets at most."""
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    inner_alignment: int = ALIGNMENT

    @property
    def positions(self) -> int:
        """Registers and sequence together."""
        return self.registers + self.sequence_length

    def inner(self, width: int) -> int:
        """Inner width of a gated MLP over `width` values: two thirds of the expansion, since it has three matrices."""
        wanted = round(self.expansion * width * 2 / 3)
        return -(-wanted // self.inner_alignment) * self.inner_alignment

    @property
    def parameters(self) -> int:
        """Number of weights, without the puzzle embeddings."""
        d = self.hidden_size
        mixing = 4 * d * d if self.mixer == "Attention" else 3 * self.positions * self.inner(self.positions)
        return self.l_layers * (mixing + 3 * d * self.inner(d)) + 2 * self.vocab_size * d + 2 * d + 2

    def write(self, folder: Path, **facts: Any) -> None:
        """Write `config.json`, with further facts for whoever loads the model."""
        text = json.dumps({"architecture": ARCHITECTURE, **asdict(self), **facts}, indent=1)
        (folder / CONFIG_FILE).write_text(text)


def read_shape(folder: Path) -> tuple[Shape, dict[str, Any]]:
    """The shape and everything else that stands in `config.json`.

    Raises:
        ValueError: the folder holds no Tiny Recursive Model.
    """
    file = folder / CONFIG_FILE
    try:
        values = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    if values.pop("architecture", None) != ARCHITECTURE:
        raise ValueError(f"{file} does not describe a Tiny Recursive Model")
    known = {field.name for field in fields(Shape)}
    return Shape(**{k: v for k, v in values.items() if k in known}), {k: v for k, v in values.items() if k not in known}
