"""`git`: a file, or one value of a YAML file, on a branch of a repository."""

from typing import Annotated

from pydantic import Field

from trainyard.api.addresses import HttpUrl
from trainyard.api.base import ApiModel, SecretRef
from trainyard.api.run.placeholders import WITH_PLACEHOLDERS, Template

_PART = r"\.?[A-Za-z0-9_{+@=-][A-Za-z0-9_{}.+@=-]*"
_BRANCH_PART = r"[A-Za-z0-9_{][A-Za-z0-9_{}-]*(\.[A-Za-z0-9_{}-]+)*"
_Branch = Annotated[str, Field(max_length=200, pattern=f"^{_BRANCH_PART}(/{_BRANCH_PART})*$"), *WITH_PLACEHOLDERS]
_YamlPath = Annotated[str, Field(min_length=1, max_length=512), *WITH_PLACEHOLDERS]


class GitAuthor(ApiModel):
    """Who a commit is by."""

    name: str = Field("Trainyard", min_length=1, max_length=128, description="Name.")
    email: str = Field(
        "trainyard@localhost", max_length=254, pattern=r"^[^<>\s@]+@[^<>\s@]+$", description="Mail address."
    )


class GitFile(ApiModel):
    """One commit on a branch. Nothing is committed where nothing changes, and nothing is ever forced."""

    repository: HttpUrl = Field(description="Address of the repository: https://host/path.")
    branch: _Branch = Field("main", description="Branch that gets the commit.")
    branch_from: _Branch | None = Field(None, description="Branch that the branch begins from where it does not exist.")
    path: Template = Field(
        max_length=512,
        pattern=f"^{_PART}(/{_PART})*$",
        description="File in the repository. Without yamlPath its whole content is value, and it is made if need be.",
    )
    yaml_path: _YamlPath | None = Field(
        None,
        description='Place of a value in a YAML or JSON file: spec.containers[name=vllm].image, images[0].newTag, data["a.b"]. '
        "It has to be there; everything else in the file stays as it is, to the byte.",
    )
    value: Template = Field(
        min_length=1, max_length=4096, description="What is to stand there, for example {version} or {uri}."
    )
    message: Template = Field(
        "{agent}: model {version}", min_length=1, max_length=1024, description="Message of the commit."
    )
    author: GitAuthor = Field(default_factory=GitAuthor, description="Who the commit is by.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with username and password, or token, of an account that may push to the branch; optionally ca.crt.",
    )
