"""`ollama`: a model in an Ollama server, with the chat template that it was trained with."""

from pydantic import Field

from trainyard.api.addresses import HttpUrl
from trainyard.api.base import ApiModel, SecretRef
from trainyard.api.run.placeholders import Template
from trainyard.api.run.targets.gguf import Quantization


class Ollama(ApiModel):
    """An Ollama server that gets the model and answers with it."""

    url: HttpUrl = Field(
        max_length=512,
        description="Address of the server, without a path: http://ollama.models:11434.",
    )
    model: Template = Field(
        max_length=128,
        pattern=r"^[A-Za-z0-9_{][A-Za-z0-9_.{}/-]*(:[A-Za-z0-9_{][A-Za-z0-9_.{}-]*)?$",
        description="Name of the model there, name or name:tag. One of this name is replaced.",
    )
    quantization: Quantization | None = Field(
        None,
        description="Which file is sent. Default: the first one of the gguf export in dependsOn. Without such an export a file of "
        "this precision is made for it (default f16).",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with the key token, for a proxy before the server that asks for one, and ca.crt for its certificate.",
    )
    keep_alive: str = Field(
        "0",
        max_length=16,
        pattern=r"^(-1|0|([0-9]+(ms|s|m|h))+)$",
        description="How long the server keeps the model in memory after the check, as 5m or 1h30m; 0 lets go of it, -1 never does.",
    )
