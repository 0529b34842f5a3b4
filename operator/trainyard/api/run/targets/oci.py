"""`oci`: an image in a registry."""

from typing import Annotated, ClassVar

from pydantic import Field

from trainyard.api.base import ApiModel, Rule, SecretRef
from trainyard.api.run.placeholders import WITH_PLACEHOLDERS, Template

_TAG = r"[A-Za-z0-9_{][A-Za-z0-9_{}.-]*"
_Tag = Annotated[str, Field(max_length=128, pattern=f"^{_TAG}$"), *WITH_PLACEHOLDERS]


class OciImage(ApiModel):
    """An image that holds nothing but the model below /models, for image volumes and whatever else mounts one."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.alias) || !self.image.endsWith(':' + self.alias)",
            "alias is the tag of image itself, which never moves: give image a tag of its own, such as {version}",
            lambda i: i.alias is None or not i.image.endswith(f":{i.alias}"),
        ),
    )

    image: Template = Field(
        max_length=384,
        pattern=rf"^[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9{{][a-z0-9{{}}._-]*)+:{_TAG}$",
        description="host/repository:tag. A tag that is there with another model is never moved: put {version} or {digest} into it.",
    )
    alias: _Tag | None = Field(
        None,
        description="Another tag, which is moved to the new image last of all. What it named before gets the tag <alias>-previous.",
    )
    insecure: bool = Field(False, description="Speak http to the registry. Only where the network is trusted.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with username and password, or .dockerconfigjson (as for pulling), of an account that may push; optionally "
        "ca.crt.",
    )
