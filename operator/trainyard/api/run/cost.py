"""`spec.cost`: what a GPU hour costs, and how much the run may spend."""

from pydantic import Field

from trainyard.api.base import ApiModel


class Cost(ApiModel):
    """Price and bounds of the run. What it has cost so far stands in status.cost."""

    hourly_rate: float | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Price of one GPU for an hour. Default: that of the chart's value cost.prices for the product in "
        "placement.nodeSelector, else that of '*'; without any, hours alone are counted.",
    )
    regular_hourly_rate: float | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="What the same GPU costs where nobody takes it away, for a run on spot nodes: status.cost.saved is the difference.",
    )
    currency: str = Field(
        "",
        max_length=3,
        pattern=r"^([A-Z]{3})?$",
        description="What the price is in: EUR, USD. Default: that of the chart's value cost.currency.",
    )
    limit: float | None = Field(
        None,
        gt=0,
        le=1_000_000_000,
        description="The run stops, with a checkpoint, when its GPUs have cost so much; it goes on when the limit is raised. Steps "
        "without GPUs are not held back.",
    )
    require_approval: bool = Field(
        False,
        description="true: nothing of the run is begun before somebody sets the annotation trainyard.dev/approved (trainyard approve).",
    )
