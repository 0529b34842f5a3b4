"""`kserve`: the model that a KServe InferenceService serves. Done by the operator."""

from pydantic import Field

from trainyard.api.base import ApiModel, DnsSubdomain
from trainyard.api.run.placeholders import Template


class KServe(ApiModel):
    """An InferenceService that exists. Its spec.predictor.model.storageUri is set, and nothing else of it."""

    inference_service: DnsSubdomain = Field(description="Name of an InferenceService in the run's namespace.")
    storage_uri: Template = Field(
        "{uri}",
        min_length=1,
        max_length=1024,
        description="Where KServe finds the model, with placeholders. {uri}: where the first export of dependsOn has put it.",
    )
