"""`benchmark`: how fast the exported files answer on the node where the step runs."""

from pydantic import Field

from trainyard.api.base import ApiModel


class Benchmark(ApiModel):
    """Speed and memory of what the exports in dependsOn have made."""

    prompt_tokens: int = Field(256, ge=8, le=4096, description="Tokens of the prompt.")
    new_tokens: int = Field(64, ge=8, le=2048, description="Tokens of the answer.")
    repetitions: int = Field(3, ge=1, le=20, description="How often each is asked; the median is told.")
