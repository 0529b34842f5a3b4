"""What may stand in braces in the texts of an export, and what it stands for. Pure.

    s3://models/{agent}/{version}/   ->   s3://models/agent-sre/v20261128-a1b2c3d4/

Operator and trainer make the same text of the same run, whenever and how often they do: the date is that of the run's
creation. A word in braces that is not known is refused when the run is applied, because a folder that is called `{verison}`
helps nobody. Braces around anything else (JSON in a ConfigMap) are left alone.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from trainyard.api.base import ApiModel

PLACEHOLDERS = {
    "name": "the run's name",
    "namespace": "its namespace",
    "agent": "spec.owner.agent, else the run's name",
    "model": "spec.versioning.name as it came out",
    "version": "spec.versioning.version as it came out",
    "date": "day of the run's creation, YYYYMMDD, in UTC",
    "timestamp": "moment of the run's creation, YYYYMMDD_HHMMSS, in UTC",
    "commit": "8 characters of the label trainyard.dev/git-commit, else of the run's uid",
    "digest": "12 characters of the digest over the trained model's files",
    "uri": "where the first export of dependsOn has put its result",
}
WITHOUT_RESULT = tuple(name for name in PLACEHOLDERS if name not in ("model", "version", "digest", "uri"))
"""Those that are known before the training, and that names and versions are made of."""

_WORD = re.compile(r"\{([A-Za-z_]\w*)\}?")
M = TypeVar("M", bound=ApiModel)


def _template(allowed: tuple[str, ...]) -> Any:
    pattern = rf"([^{{]|\{{[^A-Za-z_{{]|\{{({'|'.join(allowed)})\}})*"
    known = " ".join(f"{{{name}}}" for name in allowed)

    def checked(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            wrong = next((found[0] for found in _WORD.finditer(text) if found[0] not in known.split()), text)
            raise PydanticCustomError(
                "placeholder",
                "{wrong} is no placeholder; there are {known}; correct the word, or put a space after the brace",
                {"wrong": wrong, "known": known},
            )
        return text

    # Not a rule: the API server counts what a rule may cost over all texts of all exports, and a pattern costs nothing.
    return AfterValidator(checked), Field(json_schema_extra={"allOf": [{"pattern": f"^{pattern}$"}]})


WITH_PLACEHOLDERS = _template(tuple(PLACEHOLDERS))
"""For a type with bounds of its own: they stand before this, or they are lost in the schema where the field is optional."""
Template = Annotated[str, *WITH_PLACEHOLDERS]
"""A text with placeholders. A field of this type has a bound for its length."""
NameTemplate = Annotated[str, *_template(WITHOUT_RESULT)]
"""One whose value is known before the training."""


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with the placeholders' values."""
    return re.sub(r"\{(" + "|".join(PLACEHOLDERS) + r")\}", lambda found: values.get(found[1], found[0]), text)


def filled(target: M, values: Mapping[str, str]) -> M:
    """The target with every text filled in.

    Raises:
        ValidationError: a text that is allowed with a placeholder in it is not with the value in its place.
    """
    return type(target).model_validate(_fill_all(target.model_dump(exclude_none=True), values))


def _fill_all(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, Mapping):
        return {key: _fill_all(entry, values) for key, entry in value.items()}
    return [_fill_all(entry, values) for entry in value] if isinstance(value, list) else value
