"""GPUs among the resources that a container asks for."""

import re
from collections.abc import Mapping
from decimal import Decimal

from trainyard.api.quantity import parse_quantity

_GPU = re.compile(r"(?<![a-z])(gpu|mig|tpu|npu|xpu|gaudi|neuron)", re.IGNORECASE)
"""What device plugins call accelerators: nvidia.com/gpu, nvidia.com/mig-1g.10gb, gpu.intel.com/i915, google.com/tpu. A network
card, which is asked for in the same way, is none."""

PRODUCT_LABEL = "nvidia.com/gpu.product"
"""Of a node: which GPU it has. Set by NVIDIA's feature discovery."""


def gpus_in(amounts: Mapping[str, str | int]) -> int:
    """How many a container with these requests or limits gets."""
    return int(sum((parse_quantity(amount) for name, amount in amounts.items() if _GPU.search(name)), Decimal(0)))
