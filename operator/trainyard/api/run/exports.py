"""Where the trained model goes besides the run's volume: one class a target.

A target is a field of the spec. That a script of one's own cannot have it, which steps get its Secret, and which module of
the trainer serves it, all follows from `TARGETS`.
"""

from pydantic import Field

from trainyard.api.base import ApiModel, SecretRef

HUB_REPO = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*/[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?$"


class PushToHub(ApiModel):
    """A repository that the result is uploaded to, as one commit."""

    repo: str = Field(
        max_length=96, pattern=HUB_REPO, description="Name of the model repository: org/name. It is made if need be."
    )
    private: bool = Field(
        True, description="Whether a repository that is made is private. One that exists stays as it is."
    )
    secret_ref: SecretRef = Field(
        description="Secret with the key token (or HF_TOKEN): an access token that may write to the repository."
    )


TARGETS = ("push_to_hub",)
"""Fields of the spec, in the order in which they are served; `trainyard.trainer.exports` has a module for each."""
