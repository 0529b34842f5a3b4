"""TRL's fused output head, which goes through large logits in tiles, on a model of ours."""

from __future__ import annotations

from typing import Any

CPU_TILE = (512, 1024)
"""Tokens and vocabulary entries of one tile of TRL's output head on a CPU. Its own 4,096 x 32,768 suit a GPU, whose kernel
works on the tile in place; on a CPU there are some eight tensors of a tile's size at a time, and passes over a tile of 2 MB
find it in the cache."""


def add_output_head(model: Any) -> None:
    """Prepare a model for `measure`; its ordinary forward pass stays as it is. Once per model, before any adapter."""
    import torch
    from trl.trainer.utils import add_fused_lm_head

    if not torch.cuda.is_available():
        use_small_tiles()
    add_fused_lm_head(model)


def use_small_tiles() -> None:
    """Before the first forward pass on a CPU."""
    from trl.kernels import chunked_logprob
    from trl.trainer import utils

    chunked_logprob.TOKEN_CHUNK_SIZE, utils._CHUNKED_LOGPROB_CHUNK_SIZE = CPU_TILE
