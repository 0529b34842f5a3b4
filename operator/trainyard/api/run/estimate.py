"""`spec.estimate`: what the dry run should reckon with."""

from typing import Literal

from pydantic import Field

from trainyard.api.base import ApiModel

ACCELERATORS: dict[str, tuple[float, float]] = {
    "T4": (65, 16),
    "V100": (125, 32),
    "L4": (121, 24),
    "A10": (125, 24),
    "RTX3090": (71, 24),
    "RTX4090": (165, 24),
    "L40S": (362, 48),
    "A100-40GB": (312, 40),
    "A100-80GB": (312, 80),
    "H100": (989, 80),
    "H200": (989, 141),
    "B200": (2250, 180),
}
"""Peak of dense 16-bit matrix products in TFLOP/s, and memory in GB, by the vendor's data sheets."""


class Estimate(ApiModel):
    """Accelerator and price for the dry run's estimate. Nothing else reads it."""

    accelerator: Literal[tuple(ACCELERATORS)] | None = Field(  # type: ignore[valid-type]
        None,
        description="Which GPU resources asks for. Default: read from the node label nvidia.com/gpu.product in "
        "placement.nodeSelector, if it stands there.",
    )
    price_per_hour: float | None = Field(
        None, ge=0, le=1_000_000, description="Price of the training step for an hour, in any currency."
    )
