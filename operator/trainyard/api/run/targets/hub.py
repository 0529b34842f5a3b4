"""`hub`: a repository on a Hugging Face hub."""

from pydantic import Field

from trainyard.api.base import ApiModel, SecretRef
from trainyard.api.run.placeholders import Template

HUB_REPO = r"[A-Za-z0-9_{][A-Za-z0-9_.{}-]*/[A-Za-z0-9_{]([A-Za-z0-9_.{}-]*[A-Za-z0-9_}])?"


class Hub(ApiModel):
    """A repository that the result is uploaded to, as one commit."""

    repo: Template = Field(
        max_length=96,
        pattern=f"^{HUB_REPO}$",
        description="Name of the model repository: org/name. It is made if need be.",
    )
    private: bool = Field(
        True, description="Whether a repository that is made is private. One that exists stays as it is."
    )
    secret_ref: SecretRef = Field(
        description="Secret with the key token (or HF_TOKEN): an access token that may write to the repository."
    )
