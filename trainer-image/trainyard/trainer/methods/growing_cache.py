"""Keys and values of what has been written so far, with room for what follows.

transformers' own cache copies all of it for each new token. Here a layer's tables are as long as they will become, a token is
written into its place, and attention gets the part that is filled. Layers of other kinds (windows, states) stay what they are.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """As transformers has it; `keys` and `values` are views of larger tables."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._tables: list[torch.Tensor] = []
        self.keys: Any
        self.values: Any

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        """Takes [rows, heads, new, size] of each; returns all that is there by now."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if not self._tables or end > self._tables[0].shape[-2]:
            self._tables = [
                self._widened(begin, end, *pair) for pair in ((self.keys, key_states), (self.values, value_states))
            ]
        for table, new in zip(self._tables, (key_states, value_states), strict=True):
            table[..., begin:end, :] = new
        self.keys, self.values = (table[..., :end, :] for table in self._tables)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Only these rows, some of them several times."""
        end = self.get_seq_length()
        self._tables = [table[indices] for table in self._tables]
        self.keys, self.values = (table[..., :end, :] for table in self._tables)

    def _widened(self, begin: int, end: int, old: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        rows, heads, _, size = new.shape
        table = new.new_empty(rows, heads, max(end, self._room), size)
        if begin:
            table[..., :begin, :] = old
        return table


def growing_cache(model: Any, *, room: int) -> DynamicCache:
    """An empty cache for the model. `room` is the number of positions that prompt and answer will have."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def can_select(cache: Any) -> bool:
    """Whether rows can be taken out of it."""
    return all(hasattr(layer, "batch_select_indices") for layer in cache.layers)
