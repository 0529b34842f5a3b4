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

from trainyard.api.base import ApiModel, Rule

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


def _rule(allowed: tuple[str, ...]) -> Rule:
    pattern = rf"^([^{{]|\{{[^A-Za-z_{{]|\{{({'|'.join(allowed)})\}})*$"
    known = " ".join(f"{{{name}}}" for name in allowed)
    return Rule(
        f"self.matches(r'{pattern}')",
        f"a word in braces is a placeholder, and there are these: {known}; correct the word, or put a space after the brace",
        lambda text: re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text) is not None,
    )


def _template(rule: Rule) -> Any:
    def known(text: str) -> str:
        assert rule.holds is not None
        if not rule.holds(text):
            wrong = [found[0] for found in _WORD.finditer(text) if not rule.holds(found[0])]
            message = f"{wrong[0]}: {rule.message}" if wrong else rule.message
            raise PydanticCustomError("rule", "{message}", {"message": message, "messages": [message]})
        return text

    schema: dict[str, Any] = {"x-kubernetes-validations": [{"rule": rule.cel, "message": rule.message}]}
    return AfterValidator(known), Field(json_schema_extra=schema)


Template = Annotated[str, *_template(_rule(tuple(PLACEHOLDERS)))]
"""A text with placeholders. A field of this type has a bound for its length, because the API server reads it at each write."""
NameTemplate = Annotated[str, *_template(_rule(WITHOUT_RESULT))]
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
