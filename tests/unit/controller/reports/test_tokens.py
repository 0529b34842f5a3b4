"""Tokens, and the Secret that their key lives in."""

import base64
import hmac

import pytest
from aiohttp import web

from tests.unit.controller.fake_api import fake_api, status
from trainyard.controller.reports.tokens import KEY_BYTES, RunTokens, load_or_create_key

ALPHA = ("ns", "alpha")


def test_each_run_has_its_own_token():
    tokens = RunTokens(b"k" * 32)
    token = tokens.for_run(ALPHA, "a")
    assert token == RunTokens(b"k" * 32).for_run(ALPHA, "a")
    assert tokens.matches(ALPHA, "a", token)
    for key, uid in ((ALPHA, "b"), (("ns", "beta"), "a"), (("other", "alpha"), "a")):
        assert not tokens.matches(ALPHA, "a", tokens.for_run(key, uid))
    assert not tokens.matches(ALPHA, "a", RunTokens(b"x" * 32).for_run(ALPHA, "a"))


@pytest.mark.parametrize("presented", ["", "ü", "\udcff", "x" * 10_000])
def test_whatever_is_presented_is_an_answer(presented: str):
    tokens = RunTokens(b"k" * 32)
    assert not tokens.matches(ALPHA, "a", presented)
    assert not tokens.matches(("\ud800", "\udcff"), presented, presented)
    assert not tokens.matches_old(presented, presented)


def test_a_token_of_an_older_operator_is_known_and_none_of_today_passes_for_one():
    tokens = RunTokens(b"k" * 32)
    old = base64.urlsafe_b64encode(hmac.digest(b"k" * 32, b"a", "sha256")).rstrip(b"=").decode()
    assert tokens.matches_old("a", old)
    assert not tokens.matches(ALPHA, "a", old)
    assert not tokens.matches_old("ns/alpha/a", tokens.for_run(ALPHA, "a"))


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="16 bytes, at least 32 are needed"):
        RunTokens(b"k" * 16)


async def test_the_key_is_made_once_and_read_again():
    async with fake_api() as api:
        cluster = api.cluster()
        api.answers = [status(404, "NotFound")]
        key = await load_or_create_key(cluster, namespace="ns", name="trainyard-receiver")
        assert len(key) == KEY_BYTES
        created = api.seen[-1].body
        api.handler = lambda seen: web.json_response(created)
        assert await load_or_create_key(cluster, namespace="ns", name="trainyard-receiver") == key
        await cluster.close()


async def test_two_operators_that_start_together_end_up_with_one_key():
    theirs = {"data": {"key": base64.b64encode(b"t" * 32).decode()}}
    async with fake_api() as api:
        cluster = api.cluster()
        api.answers = [status(404, "NotFound"), status(409, "AlreadyExists"), web.json_response(theirs)]
        assert await load_or_create_key(cluster, namespace="ns", name="n") == b"t" * 32
        await cluster.close()


@pytest.mark.parametrize("data", [None, {}, {"key": "not base64!"}, {"key": base64.b64encode(b"short").decode()}])
async def test_a_secret_without_a_key_says_what_to_do(data):
    async with fake_api() as api:
        cluster = api.cluster()
        api.answers = [web.json_response({"data": data})]
        with pytest.raises(ValueError, match=r"Secret ns/n has no field 'key'.*delete the Secret"):
            await load_or_create_key(cluster, namespace="ns", name="n")
        await cluster.close()
