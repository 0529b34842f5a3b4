"""One supervision step as a program of its own, for runtimes without this code.

    python -m trainyard.trainer program --model work/model --output step.pt2

The program takes ids [examples, length] and the two latents [positions, examples, features], and gives the new latents,
logits [length, examples, vocabulary] and halting logits [examples, 2]. Calling it again and again on its own latents is
what `TRMModel.reason` does. The number of examples is free.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from trainyard.trainer.trm.fit import attention_mask
from trainyard.trainer.trm.inference import TRMModel
from trainyard.trainer.trm.model import Latent, Network
from trainyard.trainer.trm.textdata import PAD


class Program(nn.Module):
    """One step with everything that belongs to it."""

    def __init__(self, network: Network, *, masked: bool) -> None:
        super().__init__()
        self.network = network
        self.masked = masked

    def forward(self, ids: Tensor, h: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See the module's text."""
        rows = self.network.puzzle_embedding[:1].expand(ids.shape[0], -1)
        mask = attention_mask(ids, self.network.shape, padding=PAD) if self.masked else None
        latent, logits, halting = self.network.step(Latent(h, z), self.network.embed(ids, rows), mask=mask)
        return latent.h, latent.z, logits, halting


def export_step(model: TRMModel, output: Path) -> None:
    """Write one step as a torch.export program, after checking that it computes the same."""
    program = Program(model.network.cpu(), masked=model.codec is not None).eval()
    ids = torch.ones(2, model.shape.sequence_length, dtype=torch.long)
    start = model.network.start(2)
    examples = torch.export.Dim("examples", min=1, max=4096)
    shapes = ({0: examples}, {1: examples}, {1: examples})
    with torch.no_grad():
        exported = torch.export.export(program, (ids, start.h, start.z), dynamic_shapes=shapes)
        more = model.network.start(3)
        given = (ids[:1].expand(3, -1).contiguous(), more.h, more.z)
        for ours, theirs in zip(program(*given), exported.module()(*given), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.export.save(exported, output)
