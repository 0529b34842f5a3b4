"""`spec.training.rewards`: what methods that write answers are rewarded for."""

import re
from typing import Any, ClassVar

from pydantic import Field

from trainyard.api.addresses import HttpUrl, RewardUri
from trainyard.api.base import ApiModel, Quantity, Rule, SecretRef, exactly_one, opaque
from trainyard.api.quantity import parse_quantity

KINDS = ("object", "array", "string", "number", "integer", "boolean", "null")
_COUNTS = dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), int)
_NUMBERS = dict.fromkeys(("minimum", "maximum"), (int, float))
KEYWORDS: dict[str, Any] = {
    **_COUNTS,
    **_NUMBERS,
    "type": (str, list),
    "properties": dict,
    "required": list,
    "additionalProperties": (dict, bool),
    "items": (dict, bool),
    "enum": list,
    "const": object,
    "pattern": str,
    "title": str,
    "description": str,
    "$schema": str,
}
"""What a schema may say, with the types of its values."""
SCHEMA_DEPTH = 16
SCHEMA_NODES = 500


def is_schema(schema: Any) -> bool:
    """Whether it has these keywords alone, is not too deep or large, and its patterns can be read."""
    nodes = 0

    def sound(node: Any, depth: int) -> bool:
        nonlocal nodes
        nodes += 1
        if isinstance(node, bool):
            return True
        if not isinstance(node, dict) or depth > SCHEMA_DEPTH or nodes > SCHEMA_NODES:
            return False
        if any(name not in KEYWORDS or not isinstance(value, KEYWORDS[name]) for name, value in node.items()):
            return False
        if any(isinstance(node[name], bool) for name in (*_COUNTS, *_NUMBERS) if name in node):
            return False
        kinds = node.get("type", [])
        if not all(kind in KINDS for kind in ([kinds] if isinstance(kinds, str) else kinds)):
            return False
        if not all(isinstance(name, str) for name in node.get("required", ())):
            return False
        try:
            re.compile(node.get("pattern", ""))
        except re.error:
            return False
        inner = [
            *node.get("properties", {}).values(),
            *(node[n] for n in ("items", "additionalProperties") if n in node),
        ]
        return all(sound(one, depth + 1) for one in inner)

    return sound(schema, 0)


class ExactMatch(ApiModel):
    """1 if the response is the record's `answer`, else 0. White space around both does not matter."""

    ignore_case: bool = Field(False, description="Whether upper and lower case are the same.")


class Contains(ApiModel):
    """1 if the response contains a text, else 0."""

    text: str | None = Field(
        None, min_length=1, max_length=1024, description="What to look for; without it, the record's answer."
    )


class Regex(ApiModel):
    """1 if a regular expression is found in the response, else 0."""

    pattern: str = Field(min_length=1, max_length=1024, description="Python's syntax; ^...$ for the whole response.")


class JsonValid(ApiModel):
    """1 if the whole response is valid JSON, else 0."""


class JsonSchema(ApiModel):
    """1 if the whole response is JSON that a schema describes, else 0."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            None,
            f"jsonSchema.schema is a JSON schema with the keywords {', '.join(KEYWORDS)} alone, at most {SCHEMA_DEPTH} deep and with "
            f"{SCHEMA_NODES} parts: correct or remove what is another",
            lambda r: is_schema(r.schema_),
        ),
    )

    schema_: dict[str, Any] = Field(
        alias="schema", description="The schema; $ref and combinations are not offered.", json_schema_extra=opaque
    )


class CodeRun(ApiModel):
    """1 if the Python program in the response, with the record's `answer` behind it as its tests, comes to its end without an error,
    else 0.

    It is the first block of code, or the whole response. It runs without network and without the files of the pod, as nobody, with the
    standard library. Where the pod cannot isolate it, the run fails.
    """

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            None,
            "code.memory is from 64Mi to 4Gi",
            lambda c: 64 * 2**20 <= parse_quantity(c.memory) <= 4 * 2**30,
        ),
    )

    timeout_seconds: int = Field(5, ge=1, le=60, description="Processor time of a program.")
    memory: Quantity = Field("256Mi", description="Memory of a program, with the interpreter's own.")


class ToolCall(ApiModel):
    """1 if the response makes the same tool call, or runs the same shell command, as the record's `answer`, else 0. The order of
    arguments and white space do not matter."""


class HttpJudge(ApiModel):
    """The scores that a web service gives.

    It gets `{"completions": [{"prompt", "completion", "answer"}, ...]}` by POST and answers `{"scores": [...]}`, a number for each.
    """

    url: HttpUrl = Field(description="Address that the completions are posted to.")
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with token, or username and password, optionally ca.crt and tenant (sent as X-Scope-OrgID).",
    )


class Length(ApiModel):
    """1 for a response of exactly `target` tokens, falling evenly to 0 at twice that many and at none."""

    target: int = Field(ge=1, le=1_048_576, description="Tokens of the response, its end not counted.")


class RewardModel(ApiModel):
    """The score of a sequence-classification model with one output, over prompt and response as one text."""

    storage_uri: RewardUri = Field(
        description="The model: hf://org/name[@revision], pvc://claim/path, file:///path in the image, or run://name[/phase] for the "
        "result of a run with method RewardModel on the same checkpoint volume.",
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret with the key token (or HF_TOKEN), for gated or private models on the hub."
    )


class Reward(ApiModel):
    """One reason for a reward. The score of a response is the weighted sum over all of them."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "exact_match",
            "contains",
            "regex",
            "json_valid",
            "length",
            "model",
            "tool_call",
            "http",
            "json_schema",
            "code",
            message="a reward needs exactly one of exactMatch, contains, regex, jsonValid, length, model, toolCall, http, jsonSchema and "
            "code; write "
            "a second entry for a second one",
        ),
    )

    exact_match: ExactMatch | None = Field(None, description="The response is the record's answer.")
    contains: Contains | None = Field(None, description="The response contains a text.")
    regex: Regex | None = Field(None, description="The response matches a pattern.")
    json_valid: JsonValid | None = Field(None, description="The response is JSON.")
    length: Length | None = Field(None, description="The response has about so many tokens.")
    model: RewardModel | None = Field(None, description="A reward model's score.")
    tool_call: ToolCall | None = Field(
        None, description="The response is the tool call or command of the record's answer."
    )
    http: HttpJudge | None = Field(None, description="A web service's score.")
    json_schema: JsonSchema | None = Field(None, description="The response is JSON of a form.")
    code: CodeRun | None = Field(None, description="The response is a program that passes the record's tests.")
    weight: float = Field(1.0, ge=-1000, le=1000, description="Factor of this score; negative punishes.")

    @property
    def needs_answer(self) -> bool:
        """Whether every record has to have an answer."""
        return (
            self.exact_match is not None
            or self.tool_call is not None
            or self.code is not None
            or (self.contains is not None and self.contains.text is None)
        )
