"""`placement.yieldFrom`: Deployments that make room for a training, and come back after it."""

from pydantic import Field

from trainyard.api.base import ApiModel, DnsLabel, DnsSubdomain


class YieldFrom(ApiModel):
    """A Deployment whose pods go before the training begins. It has its replicas again when no training needs its place."""

    deployment: DnsSubdomain = Field(
        description="Name of a Deployment, for example one that serves a model on the GPU."
    )
    namespace: DnsLabel | None = Field(None, description="Its namespace; that of the run if none is given.")
