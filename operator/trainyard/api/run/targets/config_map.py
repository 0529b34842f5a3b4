"""`configMap`: keys of a ConfigMap that say which model is the newest. Done by the operator."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.base import ApiModel, DnsSubdomain
from trainyard.api.run.placeholders import Template

KEYS_LIMIT = 16
KEY = r"^[-._a-zA-Z0-9]+$"
KEYS = "a key of a ConfigMap has letters, digits, - _ and . only: correct it"


class RolloutRestart(ApiModel):
    """What reads the ConfigMap when it starts, and so has to start anew."""

    deployment: DnsSubdomain = Field(description="Name of a Deployment in the run's namespace.")


def _keys(data: dict[str, str]) -> dict[str, str]:
    if not all(len(key) <= 253 and re.fullmatch(KEY, key) for key in data):
        raise PydanticCustomError("rule", "{message}", {"message": KEYS, "messages": [KEYS]})
    return data


def _schema(schema: dict[str, Any]) -> None:
    schema["x-kubernetes-validations"] = [
        {
            "rule": f"self.all(k, k.size() <= 253 && k.matches('{KEY}'))",
            "message": KEYS,
        }
    ]


class ConfigMap(ApiModel):
    """A ConfigMap that exists. Its other keys stay as they are."""

    name: DnsSubdomain = Field(description="Name of a ConfigMap in the run's namespace. It has to exist.")
    data: Annotated[dict[str, Annotated[Template, Field(max_length=4096)]], AfterValidator(_keys)] = Field(
        min_length=1,
        max_length=KEYS_LIMIT,
        description="Keys that are set, with placeholders in their values.",
        json_schema_extra=_schema,
    )
    rollout_restart: RolloutRestart | None = Field(
        None, description="Have a Deployment start its pods anew afterwards."
    )
