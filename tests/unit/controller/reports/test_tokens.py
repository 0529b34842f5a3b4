"""Tokens, and the Secret that their key lives in."""

import base64

import pytest
from aiohttp import web

from tests.unit.controller.fake_api import fake_api, status
from trainyard.controller.reports.tokens import KEY_BYTES, RunTokens, load_or_create_key


def test_each_run_has_its_own_token():
    tokens = RunTokens(b"k" * 32)
    assert tokens.for_run("a") == RunTokens(b"k" * 32).for_run("a")
    assert tokens.matches("a", tokens.for_run("a"))
    assert not tokens.matches("a", tokens.for_run("b"))
    assert not tokens.matches("a", RunTokens(b"x" * 32).for_run("a"))
    assert not tokens.matches("a", "")
    assert not tokens.matches("a", "ü")


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
