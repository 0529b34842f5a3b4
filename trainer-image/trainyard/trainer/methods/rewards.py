"""What a response is worth: the weighted sum of the rewards in the manifest.

A built-in reward is a function of the response's text, its length and the record's answer. They are few, cannot be argued
with, and cost nothing. What they cannot judge, a reward model does: it reads prompt and response as one text and gives one
number.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from trainyard.api.addresses import told
from trainyard.api.quantity import parse_quantity
from trainyard.api.run.reward import CodeRun, HttpJudge, Reward
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.access import Credentials, credentials
from trainyard.trainer.data.collect.http import Client
from trainyard.trainer.data.commands import command_of
from trainyard.trainer.data.sources import secret_values
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.machine.device import Device
from trainyard.trainer.machine.sandbox import check_sandbox, passes
from trainyard.trainer.methods.json_schema import matches
from trainyard.trainer.models.load import load_reward_model

FIELD = "spec.training.rewards"
PROGRAMS_AT_ONCE = 2
_BLOCK = re.compile(r"```(?:python|py)?[ \t]*\n(.*?)(?:```|\Z)", re.S)


@dataclass(frozen=True)
class Response:
    """One response, ready to be judged."""

    prompt_ids: list[int]
    ids: list[int]
    """Without the token that ends it."""
    text: str
    answer: str
    """The record's; empty if it has none."""


Score = Callable[[Response], float]


@dataclass(frozen=True)
class Together:
    """A score that is asked for many responses at once."""

    judge: Callable[[list[Response]], list[float]]


@dataclass(frozen=True)
class Judge:
    """All rewards of a run: name, weight and score of each."""

    rewards: list[tuple[str, float, Score | Together]]

    def __call__(self, responses: list[Response]) -> tuple[list[float], dict[str, float]]:
        """The score of each response, and the mean of every single reward before its weight."""
        each = [
            score.judge(responses) if isinstance(score, Together) else [score(response) for response in responses]
            for _, _, score in self.rewards
        ]
        weights = [weight for _, weight, _ in self.rewards]
        totals = [sum(w * v for w, v in zip(weights, column, strict=True)) for column in zip(*each, strict=True)]
        means = {f"rewards/{name}": sum(row) / len(row) for (name, _, _), row in zip(self.rewards, each, strict=True)}
        return totals, means


def make_judge(context: RunContext, device: Device, tokenizer: Any) -> Judge:
    """From the manifest; loads the reward models.

    Raises:
        UserError: a pattern is wrong, or a reward model cannot be loaded.
    """
    rewards: list[tuple[str, float, Score | Together]] = []
    score: Score | Together
    for index, reward in enumerate(context.training.rewards or ()):
        if reward.model is not None:
            field = f"{FIELD}[{index}].model"
            model, own_tokenizer = load_reward_model(context, device, reward.model, field=field)
            name, score = "model", _by_model(model, own_tokenizer, tokenizer, device)
        elif reward.http is not None:
            name, score = "http", by_http(context, reward.http, tokenizer, field=f"{FIELD}[{index}].http")
        elif reward.code is not None:
            name, score = "code", by_running(reward.code, field=f"{FIELD}[{index}].code")
        else:
            name, score = built_in(reward, field=f"{FIELD}[{index}]")
        taken = sum(other.rpartition("-")[0] == name or other == name for other, _, _ in rewards)
        rewards.append((f"{name}-{taken + 1}" if taken else name, reward.weight, score))
    return Judge(rewards)


def built_in(reward: Reward, *, field: str) -> tuple[str, Score]:
    """Name and function of a reward that needs no model."""
    if (exact := reward.exact_match) is not None:
        fold = str.casefold if exact.ignore_case else str
        return "exactMatch", lambda r: float(fold(r.text.strip()) == fold(r.answer.strip()))
    if (contains := reward.contains) is not None:
        return "contains", lambda r: float((contains.text or r.answer.strip()) in r.text)
    if (regex := reward.regex) is not None:
        try:
            pattern = re.compile(regex.pattern)
        except re.error as error:
            raise invalid_config(
                f"{field}.regex.pattern {regex.pattern!r} is no regular expression: {error}",
                hint="it has Python's syntax; a literal . or ( needs a backslash",
            ) from error
        return "regex", lambda r: float(pattern.search(r.text) is not None)
    if reward.json_valid is not None:
        return "jsonValid", lambda r: float(is_json(r.text))
    if (form := reward.json_schema) is not None:
        return "jsonSchema", lambda r: float(is_json(r.text) and matches(json.loads(r.text), form.schema_))
    if reward.tool_call is not None:
        return "toolCall", lambda r: float((made := command_of(r.text)) is not None and made == command_of(r.answer))
    assert reward.length is not None
    target = reward.length.target
    return "length", lambda r: max(0.0, 1 - abs(len(r.ids) - target) / target)


def is_json(text: str) -> bool:
    """Whether the whole text is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def by_running(code: CodeRun, *, field: str) -> Together:
    """Programs, a few at once.

    Raises:
        UserError: they cannot be isolated here.
    """
    check_sandbox(field)
    memory = int(parse_quantity(code.memory))

    def passed(response: Response) -> float:
        return float(passes(program_of(response.text), response.answer, seconds=code.timeout_seconds, memory=memory))

    def scores(responses: list[Response]) -> list[float]:
        with ThreadPoolExecutor(PROGRAMS_AT_ONCE) as pool:
            return list(pool.map(passed, responses))

    return Together(scores)


def program_of(text: str) -> str:
    """The first block of code of a response, or all of it."""
    found = _BLOCK.search(text)
    return found[1] if found else text


def by_http(context: RunContext, judge: HttpJudge, policy: Any, *, field: str) -> Together:
    """A web service, asked once for all responses of an iteration.

    Raises:
        UserError: when it is asked: it does not answer, or with something else than scores.
    """
    secret = secret_values(judge.secret_ref, context.secrets_dir, told=f"{field}.secretRef")
    client = Client(judge.url, Credentials(**credentials(field, secret)), field="url")

    def scores(responses: list[Response]) -> list[float]:
        asked = [
            {"prompt": policy.decode(r.prompt_ids, skip_special_tokens=True), "completion": r.text, "answer": r.answer}
            for r in responses
        ]
        found = client.post("", {"completions": asked})
        given = found.get("scores") if isinstance(found, dict) else None
        if not isinstance(given, list) or len(given) != len(responses) or not all(map(_is_score, given)):
            raise invalid_config(
                f"{field}.url {told(judge.url)}: the answer to {len(responses)} completions is not as many finite numbers in scores",
                hint='let the service answer {"scores": [...]}, a number for each completion, in their order',
            )
        return [float(one) for one in given]

    return Together(scores)


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _by_model(model: Any, own: Any, policy: Any, device: Device) -> Score:
    """One forward pass per response, so that no padding has a say. Where both models share a vocabulary, the tokens pass on as
    they are; else the text without special tokens is encoded anew."""
    same = own.get_vocab() == policy.get_vocab()
    model.config.pad_token_id = None  # with it, the score would be read before a closing token that equals it

    def score(response: Response) -> float:
        ids = response.prompt_ids + response.ids
        ids = [*ids, policy.eos_token_id] if same else own(policy.decode(ids, skip_special_tokens=True)).input_ids
        with torch.no_grad():
            return float(model(input_ids=torch.tensor([ids], device=device.kind)).logits[0, 0])

    return score
