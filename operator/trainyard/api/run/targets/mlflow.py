"""`mlflow`: a version of a model in MLflow's registry."""

import re
from typing import Annotated, ClassVar

from pydantic import Field

from trainyard.api.addresses import HttpUrl
from trainyard.api.base import ApiModel, Rule, SecretRef, at_most_one
from trainyard.api.run.placeholders import WITH_PLACEHOLDERS, Template

RESERVED = r"(latest|v[0-9]+|previous(-.*)?)"
_Alias = Annotated[str, Field(max_length=200, pattern=r"^[A-Za-z0-9_{}-]+$"), *WITH_PLACEHOLDERS]


def _not_reserved(field: str) -> Rule:
    return Rule(
        f"!has(self.{field}) || !self.{field}.lowerAscii().matches(r'^{RESERVED}$')",
        f"{field}: MLflow keeps latest and v1, v2 ... for itself, and previous names the version before: choose another name, such as "
        "champion",
        lambda target: re.fullmatch(RESERVED, (getattr(target, field) or "").lower()) is None,
    )


class MlflowModel(ApiModel):
    """A version of a registered model, whose files lie where an s3 export of dependsOn has put them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        at_most_one("alias", "stage", message="alias and stage are the same: give one of them"),
        _not_reserved("alias"),
        _not_reserved("stage"),
    )

    tracking_uri: HttpUrl = Field(description="Address of the MLflow server.")
    model: Template = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[A-Za-z0-9_.{}-]([A-Za-z0-9_.{} -]*[A-Za-z0-9_.{}-])?$",
        description="Name of the registered model; it is made if need be.",
    )
    alias: _Alias | None = Field(
        None,
        description="Alias that is to name the version, set last of all. What it named before gets the alias previous (of alias "
        "champion) or previous-<alias>.",
    )
    stage: _Alias | None = Field(None, description="The same as alias. MLflow's stages are deprecated and not used.")
    secret_ref: SecretRef | None = Field(
        None, description="Secret with username and password, or token; optionally ca.crt."
    )

    @property
    def pointer(self) -> str | None:
        """The alias, under whichever name it was given."""
        return self.alias or self.stage
