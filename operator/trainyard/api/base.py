"""What every API model shares: camelCase on the wire, no unknown fields, and rules that exist once.

A rule that spans fields ("exactly one of", "not both") has to hold in two places: in the API server, where it is a CEL
expression in the CRD, and in `trainyard validate` and the operator, where it is Python. Both halves stand side by side
in one `Rule`, so that they are read, changed and tested together.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


@dataclass(frozen=True)
class Fetched:
    """A value that several rules of an object read; in the CRD they become one rule, which fetches it once.

    In the API server each mention of a field, present or not, costs about as much as a rule by itself, because it copies
    the schemas of all fields of the object that holds it. A name for the value costs nothing.
    """

    name: str
    """What the rules call it."""
    cel: str
    """Where it comes from. When it is not there, `unless` has to be true."""
    unless: str = "false"
    """CEL: when none of the rules applies."""


@dataclass(frozen=True)
class Rule:
    """One condition over an object's fields.

    `cel` is what the API server evaluates; `holds` the same in Python. A rule about a change of an object (it reads
    `oldSelf`) has no Python half, because only the API server sees both versions; one that the schema expresses in
    another way (keys of a list map are unique), or that would cost the API server more than it is worth, has no CEL.
    """

    cel: str | None
    message: str
    holds: Callable[[Any], bool] | None = None
    message_cel: str | None = None
    """CEL that makes the message, where it depends on what is wrong; `message` is said when it cannot be evaluated."""
    about: Fetched | None = None
    """A value that `cel` reads by name."""
    who: Callable[[Any], Iterable[str]] | None = None
    """Names of the entries that break it, for a rule without CEL: the API server says the same of all entries."""

    def told(self, broken: Any) -> str:
        """The message, with the names."""
        return f"{self.message} ({', '.join(self.who(broken))})" if self.who else self.message


def exactly_one(*fields: str, message: str) -> Rule:
    """A union in the Kubernetes manner: exactly one of these keys is present."""
    return Rule(f"{_present(fields)} == 1", message, lambda o: sum(getattr(o, f) is not None for f in fields) == 1)


def at_most_one(*fields: str, message: str) -> Rule:
    """Fields that exclude each other but may all be absent."""
    return Rule(f"{_present(fields)} <= 1", message, lambda o: sum(getattr(o, f) is not None for f in fields) <= 1)


def _present(fields: tuple[str, ...]) -> str:
    """CEL: how many of the fields are there. A sum, because a loop over a list takes the API server far longer."""
    return " + ".join(f"(has(self.{to_camel(f)}) ? 1 : 0)" for f in fields)


class ApiModel(BaseModel):
    """Base of every object of the API."""

    # strict: "5" is no number and 1 is no boolean here, because the API server says so too.
    # defer_build: a part is built with the object that holds it, and not once more for itself.
    model_config = ConfigDict(
        defer_build=True, alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, strict=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        """`mode: null` (or a key without a value) is dropped and the default taken, as the API server does it."""
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if value is not None}
        return given

    def broken_rules(self) -> list[str]:
        """What is wrong between the fields, as sentences."""
        return [rule.told(self) for rule in self.rules if rule.holds is not None and not rule.holds(self)]

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        if broken := self.broken_rules():
            raise PydanticCustomError("rule", "{message}", {"message": "; ".join(broken), "messages": broken})
        return self


def opaque(schema: dict[str, Any]) -> None:
    """Turn a field's schema into an object that the API server stores as it is (Kubernetes' own types, free maps)."""
    description = schema.get("description")
    schema.clear()
    schema["type"] = "object"
    schema["x-kubernetes-preserve-unknown-fields"] = True
    if description:
        schema["description"] = description


def opaque_items(schema: dict[str, Any]) -> None:
    """The same for the items of a list."""
    schema["items"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


DnsLabel = Annotated[str, Field(max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
DnsSubdomain = Annotated[str, Field(max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
QUANTITY_PATTERN = r"^\d+(\.\d+)?([eE][+-]?\d+|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$"


def _quantity_schema(schema: dict[str, Any]) -> None:
    schema.pop("anyOf", None)
    schema.pop("type", None)
    schema["x-kubernetes-int-or-string"] = True
    schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    schema["pattern"] = QUANTITY_PATTERN


Quantity = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=QUANTITY_PATTERN, max_length=32)],
    Field(json_schema_extra=_quantity_schema),
]
"""A Kubernetes quantity: `4`, `500m`, `16Gi`."""


class SecretRef(ApiModel):
    """A Secret in the run's own namespace."""

    name: DnsSubdomain = Field(description="Name of a Secret in the run's namespace.")
