"""What a model has to beat before it is worth anything.

    Majority           the most common answer, whatever is asked
    NearestNeighbor    the answer of the most similar training problem (TF-IDF of ids for texts, equal cells for grids)
    NoRecursion        a network of the same size that is applied once, trained for as many steps
    ShuffledLabels     the same network on answers that were dealt out at random: what it gets right is luck or a leak

All four read the same arrays as the model, so names are taken out for them too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from trainyard.trainer.signals import STOP
from trainyard.trainer.trm.fit import Fit
from trainyard.trainer.trm.folder import Split
from trainyard.trainer.trm.losses import IGNORED
from trainyard.trainer.trm.measure import Stopped
from trainyard.trainer.trm.model import Network
from trainyard.trainer.trm.stream import Stream, take

BLOCK = 256
"""Held-out problems that are compared with all training problems at once."""
MOST_NEIGHBOURS = 50_000
"""Training problems that are compared with; of more, evenly spread ones."""


def majority(train: Split, held_out: Split) -> NDArray[np.bool_]:
    """Which held-out examples the most common label gets right, position by position."""
    labels = take(train, _spread(len(train))).labels
    best = np.zeros(labels.shape[1], dtype=np.int64)
    for place in range(labels.shape[1]):
        column = labels[:, place][labels[:, place] != IGNORED]
        if len(column):
            best[place] = np.bincount(column).argmax()
    wanted = take(held_out, np.arange(len(held_out))).labels
    return _equal(np.broadcast_to(best, wanted.shape), wanted)


def nearest_neighbour(train: Split, held_out: Split, *, texts: bool) -> NDArray[np.bool_]:
    """Which held-out examples have the same answer as the training example most similar to them."""
    known = take(train, _spread(len(train)))
    features = _weighted(known.inputs, train.vocab_size) if texts else None
    right = []
    for first in range(0, len(held_out), BLOCK):
        if STOP.requested:
            raise Stopped
        asked = take(held_out, np.arange(first, min(first + BLOCK, len(held_out))))
        if features is not None:
            table, rarity = features
            likeness = _bags(asked.inputs, train.vocab_size) * rarity @ table.T
        else:
            likeness = np.zeros((len(asked), len(known)), dtype=np.float32)
            for place in range(train.length):
                likeness += asked.inputs[:, place, None] == known.inputs[None, :, place]
        right.append(_equal(known.labels[likeness.argmax(1)], asked.labels))
    return np.concatenate(right)


def trained(fit: Fit) -> Network:
    """Train to the end without checkpoints: the averaged weights.

    Raises:
        Stopped: the process was told to stop.
    """
    for _ in fit.run():
        if STOP.requested:
            raise Stopped
    fit.network.load_state_dict(fit.average.values, strict=False)
    return fit.network


def without_recursion(fit: Fit) -> Fit:
    """The same training of a network of the same size that is applied once."""
    shape = replace(fit.network.shape, h_cycles=1, l_cycles=1, max_iterations=1)
    torch.manual_seed(fit.recipe.seed)
    network = Network(shape, dtype=fit.network.dtype).to(fit.device)
    return Fit(network, fit.stream, replace(fit.recipe, depth_curriculum=False), fit.device)


def with_shuffled_labels(fit: Fit, train: Split) -> Fit:
    """The same training on answers that belong to other problems, without augmentation."""
    order = np.random.default_rng([fit.recipe.seed, 4]).permutation(len(train))
    split = replace(train, labels=np.asarray(train.labels)[order])
    return Fit(fit.network, Stream(split, seed=fit.recipe.seed, augment=None), fit.recipe, fit.device)


def _spread(count: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, MOST_NEIGHBOURS)).astype(np.int64)


def _equal(answers: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
    counts = wanted != IGNORED
    result: NDArray[np.bool_] = ((answers == wanted) | ~counts).all(1)
    return result


def _bags(inputs: NDArray[np.int64], vocab_size: int) -> NDArray[np.float32]:
    """How often each id occurs in each problem; ids of windows and padding occur everywhere and weigh nothing."""
    bags = np.zeros((len(inputs), vocab_size), dtype=np.float32)
    np.add.at(bags, (np.arange(len(inputs))[:, None], inputs), 1.0)
    return bags


def _weighted(inputs: NDArray[np.int64], vocab_size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors of all training problems, and the weight of each id."""
    bags = _bags(inputs, vocab_size)
    rarity = np.log((1 + len(bags)) / (1 + (bags > 0).sum(0))).astype(np.float32)
    vectors = bags * rarity
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(norms, 1e-9), rarity
