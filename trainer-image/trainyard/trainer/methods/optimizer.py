"""Optimizers that need to know which weight is what: Muon, and the two rates of LoRA+.

Muon (Jordan et al. 2024; Liu et al. 2025, arXiv 2502.16982) makes the update of a matrix orthogonal, so it is for weight matrices of
linear layers alone; embeddings, output heads, norms and biases go on with AdamW in a group of their own. The update's size is
matched to that of AdamW's, so that both take the same learning rate and weight decay.

LoRA+ (Hayou et al. 2024, arXiv 2402.12354) gives the matrix B of an adapter, which starts at zero, a higher rate than A.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from trainyard.api.run.training import MUON
from trainyard.trainer.context import RunContext
from trainyard.trainer.models.lora import OUTPUT_HEADS

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]
"""From transformers' Trainer, with its model and arguments, to its optimizer."""
HEADS = OUTPUT_HEADS | {"value_head"}
UP = "lora_B"


def optimizer_of(context: RunContext) -> MakeOptimizer | None:
    """None where transformers makes it by its name."""
    adapter = context.model.adapter
    if context.training.optim == MUON:
        return muon
    if adapter is not None and (ratio := adapter.lora.lora_plus_ratio) is not None:
        return lambda trainer: lora_plus(trainer, ratio)
    return None


def muon(trainer: Any) -> torch.optim.Optimizer:
    """Matrices of linear layers with Muon, the rest with AdamW."""
    model, arguments = trainer.model, trainer.args
    named = matrices_of(model)
    ours = [p for name, p in model.named_parameters() if p.requires_grad and name in named]
    return MuonAndAdamW(
        ours,
        _by_decay(trainer, lambda name: name not in named),
        lr=arguments.learning_rate,
        weight_decay=arguments.weight_decay,
        betas=(arguments.adam_beta1, arguments.adam_beta2),
        eps=arguments.adam_epsilon,
    )


def matrices_of(model: Any) -> set[str]:
    """Names of the weights that Muon takes: of linear layers, those of adapters among them, but of no head."""
    from transformers.pytorch_utils import Conv1D

    return {
        f"{path}.weight"
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not HEADS.intersection(path.split("."))
    }


def lora_plus(trainer: Any, ratio: float) -> torch.optim.Optimizer:
    """The optimizer of the arguments, with a rate `ratio` times as high for each matrix B."""
    kind, settings = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    groups = _by_decay(trainer, lambda name: UP not in name)
    raised = [p for name, p in trainer.model.named_parameters() if p.requires_grad and UP in name]
    groups.append({"params": raised, "weight_decay": trainer.args.weight_decay, "lr": settings["lr"] * ratio})
    made: torch.optim.Optimizer = kind(groups, **settings)
    return made


def _by_decay(trainer: Any, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
    """Groups of the trained parameters whose names are wanted, as transformers makes them: biases and norms do not decay."""
    decaying = set(trainer.get_decay_parameter_names(trainer.model))
    named = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad and wanted(name)]
    groups = [
        {"params": [p for name, p in named if name in decaying], "weight_decay": trainer.args.weight_decay},
        {"params": [p for name, p in named if name not in decaying], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class MuonAndAdamW(torch.optim.Optimizer):
    """Two optimizers that look like one to schedulers and checkpoints: the first group is Muon's."""

    def __init__(
        self,
        matrices: Iterable[torch.Tensor],
        others: list[dict[str, Any]],
        *,
        lr: float,
        weight_decay: float,
        betas: tuple[float, float],
        eps: float,
    ) -> None:
        self._muon = torch.optim.Muon(
            [{"params": list(matrices)}], lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        self._adamw = torch.optim.AdamW(others, lr=lr, betas=betas, eps=eps) if others else None
        super().__init__([*self._muon.param_groups, *(self._adamw.param_groups if self._adamw else ())], {})
        self._share()

    def _share(self) -> None:
        """Let both work on the groups and the state that are seen from outside."""
        self._muon.param_groups, self._muon.state = self.param_groups[:1], self.state
        if self._adamw is not None:
            self._adamw.param_groups, self._adamw.state = self.param_groups[1:], self.state

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Any = None) -> Any:
        """Both steps. A closure is called once before."""
        loss = None if closure is None else closure()
        self._muon.step()  # type: ignore[no-untyped-call]
        if self._adamw is not None:
            self._adamw.step()
        return loss
