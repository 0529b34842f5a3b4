"""Tiny Recursive Models: the network, what has no name in other trainers, and puzzles as data.

A Tiny Recursive Model refines an answer of fixed length; it does not write text word by word. So it has its own kind of
model (`spec.model.trm`), its own method (TRM), and data of two kinds: grids of symbols, and texts of format TRM whose
solutions come from something closed (labels, slots, a line to repair, a codebook).
"""

from typing import ClassVar, Literal

from pydantic import Field

from trainyard.api.addresses import PuzzleUri
from trainyard.api.base import ApiModel, Rule

GENERATED = ("Sudoku", "Maze")
PUZZLE_SIDES = (4, 6, 9)


class Trm(ApiModel):
    """A Tiny Recursive Model with random weights: one small network that is applied again and again."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.hiddenSize % (2 * self.numHeads) == 0",
            "model.trm: hiddenSize must be divisible by twice numHeads, because each head turns pairs of features",
            lambda t: t.hidden_size % (2 * t.num_heads) == 0,
        ),
    )

    l_layers: int = Field(2, ge=1, le=16, description="Layers of the network (L_layers).")
    h_cycles: int = Field(
        3, ge=1, le=16, description="Recursions per step; only the last one is differentiated (H_cycles)."
    )
    l_cycles: int = Field(6, ge=1, le=32, description="Updates of the scratch pad per recursion (L_cycles).")
    hidden_size: int = Field(512, ge=16, le=4096, description="Features per position.")
    num_heads: int = Field(8, ge=1, le=64, description="Attention heads.")
    expansion: float = Field(4.0, gt=0, le=16, description="Inner width of the gated MLP relative to its input.")
    mixer: Literal["Attention", "MLP"] = Field(
        "Attention",
        description="How positions see each other. MLP is better on small full grids (Sudoku); its weights grow with the "
        "square of the length, and texts need Attention.",
    )
    registers: int = Field(
        16, ge=1, le=64, description="Extra positions before the sequence; the first holds the puzzle's embedding."
    )
    max_iterations: int = Field(16, ge=1, le=64, description="Most steps an example is refined for.")


class TrmTraining(ApiModel):
    """What only method TRM has."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.task != 'FreeForm' || self.experimental",
            "training.trm.task FreeForm: a network of this size learns a mapping, not a language, and nobody has shown free "
            "text to work; restrict the task, or set experimental: true to try it anyway",
            lambda t: t.task != "FreeForm" or t.experimental,
        ),
    )

    loss: Literal["Auto", "StableMax", "SoftMax"] = Field(
        "Auto",
        description="Loss over the symbols. StableMax grows linearly where SoftMax grows exponentially: steadier with few "
        "symbols, slow with many. Auto: StableMax up to 64 symbols, else SoftMax.",
    )
    halt_exploration: float = Field(
        0.1, ge=0, le=1, description="Share of examples that have to go on although the network wants to halt."
    )
    ema: float = Field(
        0.999, ge=0, lt=1, description="Decay of the averaged weights, which are the result. 0: the last weights."
    )
    puzzle_learning_rate: float = Field(
        0.01, ge=0, le=1, description="Learning rate of the puzzle embeddings (sign descent)."
    )
    depth_curriculum: bool = Field(
        False, description="Begin with fewer cycles: a third until 30 % of the steps, two thirds until 60 %."
    )
    augment: bool = Field(
        True,
        description="Show each example in ever new equal forms: digits renamed, grids turned, machines renamed.",
    )
    compile: bool = Field(
        False, description="Compile the step. On CPUs it needs an image with g++ and the headers of torch."
    )
    task: Literal["Auto", "Label", "Codebook", "Extract", "Repair", "FreeForm"] = Field(
        "Auto",
        description="For texts. Label: solutions are few. Codebook: they repeat once names are taken out. Extract: they are "
        "words of the problem. Repair: they have the problem's own length. Auto: the first that fits.",
    )
    experimental: bool = Field(False, description="Allow task FreeForm.")


class Puzzle(ApiModel):
    """Grids of symbols as data: generated, or read."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.kind != 'Sudoku' || self.size in [4, 6, 9]",
            "the size of a Sudoku is 4, 6 or 9: set puzzle.size to one of these",
            lambda p: p.kind != "Sudoku" or p.size in PUZZLE_SIDES,
        ),
        Rule(
            "self.kind != 'Maze' || self.size >= 7",
            "the size of a maze is at least 7: raise puzzle.size",
            lambda p: p.kind != "Maze" or p.size >= 7,
        ),
        Rule(
            "has(self.storageUri) || self.kind in ['Sudoku', 'Maze']",
            "puzzles of kind ARC and Arrays are not generated: give puzzle.storageUri",
            lambda p: p.storage_uri is not None or p.kind in GENERATED,
        ),
    )

    kind: Literal["Sudoku", "Maze", "ARC", "Arrays"] = Field(
        description="Sudoku, Maze: generated, or a CSV file with the columns question and answer. ARC: JSON files with train "
        "and test pairs. Arrays: a folder with train and test in the published layout (dataset.json and all__*.npy)."
    )
    storage_uri: PuzzleUri | None = Field(
        None,
        description="Where it is read from, as a dataset's storageUri; absent: generated. Arrays: the folder above train and test.",
    )
    size: int = Field(9, ge=4, le=64, description="Cells along one side.")
    count: int = Field(1000, ge=2, le=1_000_000, description="How many different ones are generated, or at most read.")
    seed: int = Field(42, ge=0, le=2147483647, description="Seed of the generator.")
    augmentations: int = Field(
        100,
        ge=1,
        le=1000,
        description="ARC: forms of each task (turned, colours exchanged), each with an embedding of its own.",
    )
