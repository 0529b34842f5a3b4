"""The only door to the API server.

Objects are plain JSON mappings all the way: the client library's generated models would cost milliseconds and megabytes
for nothing, so of the library only its configuration is used (kubeconfig with its login plugins, service account with
its renewed token). Requests go through `transport`, and each failure is one of `errors`.

Writes name the field manager `trainyard`, so that `kubectl get -o yaml --show-managed-fields` tells whose a field is.
"""

import builtins
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, Literal, Self

from kubernetes.aio import config as kube_config
from kubernetes.aio.client.configuration import Configuration

from trainyard.api.names import FIELD_MANAGER
from trainyard.controller.kube import errors
from trainyard.controller.kube.errors import Request
from trainyard.controller.kube.resources import (
    EVENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    PVCS,
    SECRETS,
    TRAININGRUNS,
    Resource,
)
from trainyard.controller.kube.transport import (
    CONNECTIONS,
    JSON,
    MERGE_PATCH,
    Credentials,
    Object,
    OnRequest,
    Transport,
    environment_proxy,
)

__all__ = [
    "EVENTS", "JOBS", "LEASES", "NAMESPACES", "NODES", "PODS", "PVCS", "SECRETS", "TRAININGRUNS",
    "Cluster", "Credentials", "Object", "Resource",
]  # fmt: skip

Propagation = Literal["Background", "Foreground", "Orphan"]

PAGE = 500
"""Objects per request of a list."""

_HOME_KUBECONFIG = os.path.expanduser("~/.kube/config")
_ONE_METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Cluster:
    """Reads and writes objects. One instance per process; `close()` it at the end."""

    _configuration: Configuration
    _present: Credentials

    def __init__(
        self, configuration: Configuration, *, on_request: OnRequest | None = None, connections: int = CONNECTIONS
    ) -> None:
        self._adopt(configuration)
        self._transport = Transport(
            credentials=self.credentials, reload=self._reload, on_request=on_request, connections=connections
        )

    @classmethod
    async def connect(cls, *, on_request: OnRequest | None = None, connections: int = CONNECTIONS) -> Self:
        """With $KUBECONFIG when it is set, else with the pod's service account, else with ~/.kube/config.

        Raises `ConnectionError` that says what was looked for when there is none of them.
        """
        return cls(await _configuration(), on_request=on_request, connections=connections)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def credentials(self) -> Credentials:
        """Present credentials: a service account's token file is read again when the last look is a minute old."""
        authorization = _authorization(await self._configuration.get_api_key_with_prefix("BearerToken"))
        if authorization != self._present.authorization:
            self._present = replace(self._present, authorization=authorization)
        return self._present

    async def _reload(self) -> None:
        try:
            self._adopt(await _configuration())
        except ConnectionError:
            return  # the files are being replaced at this very moment; the next refusal looks again

    def _adopt(self, configuration: Configuration) -> None:
        server = str(configuration.host)
        self._configuration = configuration
        self._present = Credentials(
            server=server,
            ca_file=configuration.ssl_ca_cert,
            insecure=not configuration.verify_ssl,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            tls_server_name=configuration.tls_server_name or None,
            proxy=configuration.proxy or environment_proxy(server),
        )

    # Reads

    async def get(
        self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False
    ) -> Object | None:
        """The object, or None when there is none. With `metadata_only` nothing but its metadata leaves the server."""
        request = Request("get", resource.plural, namespace, name)
        accept = _ONE_METADATA_ONLY if metadata_only else JSON
        try:
            return await self._transport.send(request, "GET", resource.path(namespace, name), accept=accept)
        except errors.NotFound:
            return None

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[Object]:
        """All matching objects, over all namespaces without `namespace`; with `limit` no more than so many."""
        found: builtins.list[Object] = []
        async for page in self.pages(
            resource, namespace, label_selector=label_selector, field_selector=field_selector, size=limit or PAGE
        ):
            found += page
            if limit is not None and len(found) >= limit:
                return found[:limit]
        return found

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        size: int = PAGE,
        metadata_only: bool = False,
    ) -> AsyncIterator[builtins.list[Object]]:
        """The same page by page, so that thousands of objects are never held at once.

        With `metadata_only` the objects have nothing but their metadata. Raises `Transient` when the pages are fetched
        so slowly that the API server has forgotten the list.
        """
        request = Request("list", resource.plural, namespace)
        query = {"limit": str(size)}
        if label_selector:
            query["labelSelector"] = label_selector
        if field_selector:
            query["fieldSelector"] = field_selector
        accept = _METADATA_ONLY if metadata_only else JSON
        while True:
            answer = await self._transport.send(request, "GET", resource.path(namespace), query=query, accept=accept)
            yield answer.get("items") or []
            token = (answer.get("metadata") or {}).get("continue")
            if not token:
                return
            query["continue"] = token

    # Writes. They are answered with the object's metadata only: nobody here reads the rest of what he has just sent, and
    # the API server and this process save a quarter of the work.

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Make it. Raises `AlreadyExists` when one of this name is there, `NotFound` when the namespace is not."""
        name = (body.get("metadata") or {}).get("name")
        return await self._transport.send(
            Request("create", resource.plural, namespace, name),
            "POST",
            resource.path(namespace),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            accept=_ONE_METADATA_ONLY,
        )

    async def ask(self, resource: Resource, body: Object) -> Object:
        """Send a review, which is answered and not kept."""
        return await self._transport.send(
            Request("create", resource.plural), "POST", resource.path(), body=body, accept=JSON
        )

    async def patch(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        merge_patch: Mapping[str, Any],
    ) -> Object:
        """A JSON merge patch (null removes a field). With `metadata.resourceVersion` in it: only onto that version."""
        return await self._transport.send(
            Request("patch", resource.plural, namespace, name),
            "PATCH",
            resource.path(namespace, name),
            query={"fieldManager": FIELD_MANAGER},
            body=merge_patch,
            accept=_ONE_METADATA_ONLY,
            content_type=MERGE_PATCH,
        )

    async def replace_status(self, resource: Resource, namespace: str, name: str, body: Object) -> Object:
        """Put the status of `body` (a whole object as read, with its resourceVersion) in place of the present one."""
        return await self._transport.send(
            Request("update", f"{resource.plural}/status", namespace, name),
            "PUT",
            resource.path(namespace, name, "status"),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            accept=_ONE_METADATA_ONLY,
        )

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        propagation: Propagation = "Background",
        grace_period: int | None = None,
    ) -> bool:
        """Delete it; False when it was gone already. With `uid`, raises `Conflict` when it is another object by now."""
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        if grace_period is not None:
            options["gracePeriodSeconds"] = grace_period
        request = Request("delete", resource.plural, namespace, name)
        try:
            await self._transport.send(request, "DELETE", resource.path(namespace, name), body=options)
        except errors.NotFound:
            return False
        return True

    async def serves(self, resource: Resource) -> bool:
        """Whether the API server knows this resource type."""
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        try:
            answer = await self._transport.send(Request("discover", resource.plural), "GET", root)
        except errors.NotFound:
            return False
        return any(r.get("name") == resource.plural for r in answer.get("resources") or ())


async def _configuration() -> Configuration:
    configuration = Configuration()
    kubeconfig = os.environ.get("KUBECONFIG") or ""
    source = f"KUBECONFIG={kubeconfig}" if kubeconfig else "the service account"
    try:
        if not kubeconfig and os.environ.get("KUBERNETES_SERVICE_HOST"):
            kube_config.load_incluster_config(client_configuration=configuration)
            return configuration
        if not kubeconfig:
            source = kubeconfig = _HOME_KUBECONFIG
        await kube_config.load_kube_config(
            config_file=kubeconfig, client_configuration=configuration, persist_config=False
        )
    except (kube_config.ConfigException, OSError, KeyError, TypeError) as error:
        raise ConnectionError(
            f"cannot read how to reach the cluster from {source}: {error}; set KUBECONFIG to the path of a "
            "kubeconfig, or run in a pod that has a service account"
        ) from error
    return configuration


def _authorization(header: str | None) -> str | None:
    """The loaders write `bearer <token>` or `Bearer <token>`, one of them with the file's line end."""
    if not header:
        return None
    scheme, _, token = header.strip().partition(" ")
    return f"{'Bearer' if scheme.lower() == 'bearer' else scheme} {token.strip()}".strip()
