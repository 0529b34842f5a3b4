"""What a model does on a CPU in a quicker way than its architecture's own code: the same values but for roundings.

Each of these decides at every call whether it may stand in, and lets the architecture do its own where it may not.
"""

from __future__ import annotations

from typing import Any

from trainyard.trainer.models.adapter_linear import quicken_adapters
from trainyard.trainer.models.gated import quicken_gates
from trainyard.trainer.models.packed_attention import quicken_attention
from trainyard.trainer.models.rms_norm import quicken_norms
from trainyard.trainer.models.rotary import quicken_rotation


def quicken(model: Any) -> None:
    """Before training or evaluation, once the model is whole."""
    quicken_attention()
    quicken_norms(model)
    quicken_rotation(model)
    quicken_adapters(model)
    quicken_gates(model)
