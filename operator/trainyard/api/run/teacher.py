"""`spec.training.teacher`: whose probabilities method Distillation learns."""

from typing import ClassVar

from pydantic import Field

from trainyard.api.addresses import HttpUrl, RewardUri
from trainyard.api.base import ApiModel, Rule, SecretRef, exactly_one


class TeacherServer(ApiModel):
    """An OpenAI-compatible server of a model with the same tokenizer, which tells the log-probabilities of a given text.

    The prepare step posts each record's token ids to `<url>/completions` with `echo` and `logprobs`, and keeps the answers.
    """

    url: HttpUrl = Field(description="Address of the API with its version, as https://host/v1.")
    model: str = Field(min_length=1, max_length=256, description="Name of the model there.")
    top_logprobs: int = Field(
        20,
        ge=1,
        le=100,
        description="Tokens of each position whose log-probabilities are asked for; all others count as one. Servers have a limit.",
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret with token, or username and password, optionally ca.crt."
    )


class Teacher(ApiModel):
    """A larger model with the same tokenizer."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "storage_uri",
            "http",
            message="training.teacher needs exactly one of storageUri (a model that is loaded beside the one that is trained) and http "
            "(a server that is asked beforehand)",
        ),
        Rule(
            "!has(self.secretRef) || has(self.storageUri)",
            "training.teacher.secretRef is for storageUri: the Secret of a server stands in training.teacher.http.secretRef",
            lambda t: t.secret_ref is None or t.storage_uri is not None,
        ),
    )

    storage_uri: RewardUri | None = Field(
        None,
        description="The model: hf://org/name[@revision], pvc://claim/path, file:///path in the image, or run://name[/phase] for the "
        "result of another run on the same checkpoint volume. It is loaded beside the one that is trained.",
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret with the key token (or HF_TOKEN), for gated or private models on the hub."
    )
    http: TeacherServer | None = Field(None, description="A server that is asked in the prepare step.")
