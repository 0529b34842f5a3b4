"""Who may ask where the API is reached over the network: the API server's word on the token, and on what is done for its owner."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from trainyard.controller.datasets.gate import Gate
from trainyard.controller.datasets.request import Place
from trainyard.controller.page.reader import Person
from trainyard.controller.reports.formats import Refusal

PLACE = Place("ml", "tunix-rt-training-secrets", "1Gi")


class Reviews:
    def __init__(self, *allowed: str) -> None:
        self.allowed = allowed
        self.asked: list[str] = []

    async def review_token(self, token: str) -> Person | None:
        return Person("ada", ("team",)) if token == "hers" else None

    async def may(self, person: Person, attributes: dict[str, Any]) -> bool:
        assert person.name == "ada"
        assert attributes["namespace"] == "ml"
        self.asked.append(" ".join(str(attributes[k]) for k in ("verb", "resource", "name") if k in attributes))
        return self.asked[-1] in self.allowed


CREATE, READ = "create trainingruns", "get secrets tunix-rt-training-secrets"


async def let_in(reviews: Reviews, *, builds: bool, token: str = "hers") -> None:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    request = make_mocked_request("POST", "/api/datasets/build", headers=headers)
    await Gate("Kubernetes", place=PLACE, reviews=reviews).let_in(request, builds=builds)


async def test_whoever_may_do_it_himself() -> None:
    await let_in(Reviews(CREATE, READ), builds=True)
    reading = Reviews(CREATE)
    await let_in(reading, builds=False)
    assert reading.asked == [CREATE]


@pytest.mark.parametrize(
    ("allowed", "builds", "words"),
    [
        ((), True, "ada may not create trainingruns in namespace ml"),
        ((), False, "ada may not create trainingruns in namespace ml"),
        ((CREATE,), True, "ada may not get secrets tunix-rt-training-secrets in namespace ml"),
        ((READ,), True, "ada may not create trainingruns"),
    ],
)
async def test_whoever_may_not(allowed: tuple[str, ...], builds: bool, words: str) -> None:
    with pytest.raises(Refusal, match=words) as refused:
        await let_in(Reviews(*allowed), builds=builds)
    assert refused.value.status == 403


@pytest.mark.parametrize("token", ["", "another", "x" * 20000])
async def test_nobody_without_a_token_of_this_cluster(token: str) -> None:
    reviews = Reviews(CREATE, READ)
    with pytest.raises(Refusal) as refused:
        await let_in(reviews, builds=True, token=token)
    assert (refused.value.status, reviews.asked) == (401, [])
