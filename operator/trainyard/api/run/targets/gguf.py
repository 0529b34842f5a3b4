"""`gguf`: files for llama.cpp, Ollama and what else reads GGUF, made in the run's folder."""

from typing import Annotated, Literal

from pydantic import Field

from trainyard.api.base import ApiModel
from trainyard.api.run.placeholders import Template

Quantization = Literal["f16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"]


class Gguf(ApiModel):
    """GGUF files of the trained model, checked against it."""

    quantizations: Annotated[list[Quantization], Field(min_length=1, max_length=5)] = Field(
        default=["Q4_K_M"],
        description="Which files are made: f16 answers as the trained model does, to the token; Q8_0, Q6_K, Q5_K_M and Q4_K_M are "
        "smaller by half to three quarters, and worse by a little more each time. The first is what later exports send.",
    )
    file_name: Template = Field(
        "{name}",
        max_length=128,
        pattern=r"^[A-Za-z0-9_{][A-Za-z0-9_.{}-]*$",
        description="Name of the files; -<quantization>.gguf is added.",
    )
