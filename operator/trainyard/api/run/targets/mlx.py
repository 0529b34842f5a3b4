"""`mlx`: a folder for MLX, which runs models on Apple's chips, made in the run's folder."""

from typing import ClassVar, Literal

from pydantic import Field

from trainyard.api.base import ApiModel, Rule


class Mlx(ApiModel):
    """The trained model as mlx-lm loads it, checked against it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.groupSize) || has(self.bits)",
            "groupSize belongs to a quantization: give bits as well, or remove it",
            lambda m: m.group_size is None or m.bits is not None,
        ),
    )

    bits: Literal[3, 4, 5, 6, 8] | None = Field(
        None, description="Bits of a weight. Default: the precision of the trained model."
    )
    group_size: Literal[32, 64, 128] | None = Field(
        None, description="Weights that share a scale, with bits. Default: 64. Rows of the model have to be a multiple."
    )
