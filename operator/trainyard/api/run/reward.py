"""`spec.training.rewards`: what method PPO is rewarded for."""

from typing import ClassVar

from pydantic import Field

from trainyard.api.addresses import RewardUri
from trainyard.api.base import ApiModel, Rule, SecretRef, exactly_one


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
            message="a reward needs exactly one of exactMatch, contains, regex, jsonValid, length and model; write a second "
            "entry for a second one",
        ),
    )

    exact_match: ExactMatch | None = Field(None, description="The response is the record's answer.")
    contains: Contains | None = Field(None, description="The response contains a text.")
    regex: Regex | None = Field(None, description="The response matches a pattern.")
    json_valid: JsonValid | None = Field(None, description="The response is JSON.")
    length: Length | None = Field(None, description="The response has about so many tokens.")
    model: RewardModel | None = Field(None, description="A reward model's score.")
    weight: float = Field(1.0, ge=-1000, le=1000, description="Factor of this score; negative punishes.")

    @property
    def needs_answer(self) -> bool:
        """Whether every record has to have an answer."""
        return self.exact_match is not None or (self.contains is not None and self.contains.text is None)
