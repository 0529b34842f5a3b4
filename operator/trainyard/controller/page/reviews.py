"""The API server's word on who reads the page. Needs the right to make TokenReviews and SubjectAccessReviews."""

from collections.abc import Mapping
from typing import Any

from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.kube.resources import Resource
from trainyard.controller.page.reader import Person, access_review, runs_listed

TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", namespaced=False)
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False)


class ApiReviews:
    """See `reader.Reviews`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def review_token(self, token: str) -> Person | None:
        body = {"apiVersion": TOKEN_REVIEWS.api_version, "kind": TOKEN_REVIEWS.kind, "spec": {"token": token}}
        status = await self._status(TOKEN_REVIEWS, body)
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            return None
        return Person(str(user["username"]), tuple(map(str, user.get("groups") or ())))

    async def may_list_runs(self, person: Person, namespace: str | None) -> bool:
        return await self.may(person, runs_listed(namespace))

    async def may(self, person: Person, attributes: Mapping[str, Any]) -> bool:
        """Whether he may do it; `attributes` as in a SubjectAccessReview's resourceAttributes."""
        return bool((await self._status(ACCESS_REVIEWS, access_review(person, attributes))).get("allowed"))

    async def _status(self, kind: Resource, body: dict[str, Any]) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = (await self._cluster.ask(kind, body)).get("status") or {}
        return answer
