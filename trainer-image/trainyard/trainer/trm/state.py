"""What a checkpoint of a Tiny Recursive Model holds, and how it is put back.

    network.safetensors    raw weights
    average.safetensors    their moving average
    best.safetensors       the average that was best on held-out examples, if any was measured
    optimizer.pt           moments
    slots.safetensors      latents and examples under way, of all processes
    state.json             step, position in the data, what the best weights reached

No state of a random number generator: everything that is drawn depends on the seed and on these positions alone. Nothing
says how many processes there were: any number of them goes on from it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.frame.early_stop import Seen
from trainyard.trainer.trm.fit import Fit, Slots
from trainyard.trainer.trm.folder import Draw
from trainyard.trainer.trm.model import Latent


@dataclass
class Best:
    """The best averaged weights so far, by exact share and then by share of tokens."""

    exact: float = -1.0
    tokens: float = -1.0
    step: int = 0
    measured: int = 0
    """Step of the newest measurement."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    early: Seen = field(default_factory=Seen)
    """What `spec.training.earlyStopping` has seen."""

    def offer(self, exact: float, tokens: float, *, step: int, weights: dict[str, Tensor]) -> None:
        """Keep a copy of these weights if they are at least as good: of equals the later ones."""
        self.measured = step
        if (exact, tokens) >= (self.exact, self.tokens):
            self.exact, self.tokens, self.step = exact, tokens, step
            self.weights = {name: value.clone() for name, value in weights.items()}


def whole_latent(fit: Fit) -> Latent:
    """The latents of all slots, on the first process; those of one's own on the others. All have to call this."""
    own = fit.slots.latent
    parts = [fit.team.brought(tensor) for tensor in own]
    return Latent(*(torch.cat(part, 1) for part in parts)) if fit.team.leads else own


def write_state(folder: Path, fit: Fit, best: Best, *, latent: Latent) -> None:
    """Everything, as of the last whole step; `latent` is that of all slots."""
    save_file(_stored(fit.network.state_dict()), folder / "network.safetensors")
    save_file(_stored(fit.average.values), folder / "average.safetensors")
    if best.weights:
        save_file(_stored(best.weights), folder / "best.safetensors")
    torch.save(fit.optimizer.state_dict(), folder / "optimizer.pt")
    slots = fit.slots
    arrays = {
        "latent_h": latent.h,
        "latent_z": latent.z,
        "inputs": torch.from_numpy(slots.draw.inputs),
        "labels": torch.from_numpy(slots.draw.labels),
        "puzzles": torch.from_numpy(slots.draw.puzzles),
        "iterations": torch.from_numpy(slots.iterations),
        "halted": torch.from_numpy(slots.halted),
    }
    save_file(_stored(arrays), folder / "slots.safetensors")
    state = {
        "step": fit.step,
        "drawn": fit.stream.drawn,
        "best": {"exact": best.exact, "tokens": best.tokens, "step": best.step, "measured": best.measured},
        "early": asdict(best.early),
    }
    (folder / "state.json").write_text(json.dumps(state))


def read_state(folder: Path, fit: Fit) -> Best:
    """Put a fit into the state of a checkpoint. Returns the best weights so far.

    Raises:
        UserError: the checkpoint is of another kind of model, or of other sizes.
    """
    if not (folder / "state.json").exists():
        raise invalid_config(
            f"{folder.name} is no checkpoint of a Tiny Recursive Model",
            hint="spec.checkpoints.resumeFrom needs a run with the same method and model",
        )
    state = json.loads((folder / "state.json").read_text())
    device = str(fit.network.head.device)  # with its number
    try:
        fit.network.load_state_dict(load_file(folder / "network.safetensors", device=device))
    except RuntimeError as error:
        raise invalid_config(
            f"the checkpoint {folder.name} is of a network with other sizes: {str(error).splitlines()[-1].strip()}",
            hint="keep spec.model.trm and the data as they were, or use another metadata.name",
        ) from error
    for name, value in load_file(folder / "average.safetensors", device=device).items():
        fit.average.values[name].copy_(value)
    fit.optimizer.load_state_dict(torch.load(folder / "optimizer.pt", map_location=fit.device, weights_only=True))
    for group in fit.optimizer.param_groups:  # the rate is set at each step
        group["weight_decay"] = fit.recipe.weight_decay
    arrays = load_file(folder / "slots.safetensors")
    if len(arrays["iterations"]) == fit.recipe.batch:
        own = fit.slots.own
        fit.slots = Slots(
            latent=Latent(
                *(arrays[f"latent_{n}"][:, own].contiguous().to(fit.device, fit.network.dtype) for n in "hz")
            ),
            draw=Draw(*(arrays[name].numpy() for name in ("inputs", "labels", "puzzles"))),
            iterations=arrays["iterations"].numpy(),
            halted=arrays["halted"].numpy(),
            own=own,
        )
    # With another batch size the examples under way are dropped, and new ones drawn.
    fit.step, fit.stream.drawn = int(state["step"]), int(state["drawn"])
    best = Best(**state["best"])
    if (folder / "best.safetensors").exists():
        best.weights = load_file(folder / "best.safetensors", device=device)
    best.early = Seen(**state.get("early", {}))
    return best


def _stored(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().contiguous().cpu() for name, value in tensors.items()}
