"""A bearer token for each run, computed instead of stored.

A token is an HMAC over the run's namespace, name and uid with a key that only the operator has. So the operator can check
any token after a restart without having kept one, a pod can report for its own run only and under no other address, and a
run that is created again under the same name has another token. The key lives in a Secret beside the operator.
"""

import base64
import binascii
import hmac
import secrets

from trainyard.api.names import MANAGED_BY, MANAGED_BY_LABEL, job_token
from trainyard.controller.kube import errors
from trainyard.controller.kube.cluster import SECRETS, Cluster, Object

Key = tuple[str, str]
"""Namespace and name."""

KEY_BYTES = 32
KEY_FIELD = "key"


class RunTokens:
    """Makes and checks tokens."""

    def __init__(self, key: bytes) -> None:
        if len(key) < KEY_BYTES:
            raise ValueError(f"the key has {len(key)} bytes, at least {KEY_BYTES} are needed")
        self._keyed = hmac.new(key, digestmod="sha256")

    def for_run(self, key: Key, uid: str) -> str:
        """The token of this run: 43 characters of base64url."""
        return self._over("/".join((*key, uid)))

    def for_job(self, key: Key, uid: str) -> str:
        """The same token with what it is over (`names.job_token`)."""
        return job_token(self.for_run(key, uid), *key, uid)

    def job_of(self, presented: str) -> tuple[Key, str] | None:
        """Namespace and name, and the uid, of the run whose `for_job` this is; None where it is nobody's."""
        token, _, about = presented.partition(".")
        try:
            parts = base64.urlsafe_b64decode(about + "=" * (-len(about) % 4)).decode().split("/")
        except (binascii.Error, ValueError):
            return None
        if len(parts) != 3 or not self.matches((parts[0], parts[1]), parts[2], token):
            return None
        return (parts[0], parts[1]), parts[2]

    def matches(self, key: Key, uid: str, presented: str) -> bool:
        """In constant time, so that answers do not tell how much of a guess was right."""
        return _equal(self.for_run(key, uid), presented)

    def matches_old(self, uid: str, presented: str) -> bool:
        """Whether it is a token of an older operator, which was over the uid alone.

        A uid has no slash: otherwise a token of today would pass for one of a run of such a uid.
        """
        return "/" not in uid and _equal(self._over(uid), presented)

    def _over(self, text: str) -> str:
        over = self._keyed.copy()  # much cheaper than to begin with the key each time
        over.update(text.encode(errors="surrogatepass"))
        return base64.urlsafe_b64encode(over.digest()).rstrip(b"=").decode()


def _equal(token: str, presented: str) -> bool:
    return hmac.compare_digest(token.encode(), presented.encode(errors="surrogatepass"))


async def load_or_create_key(cluster: Cluster, *, namespace: str, name: str) -> bytes:
    """The operator's key, from its Secret; made when there is none.

    Raises `ValueError` when the Secret is there without a usable key.
    """
    found = await cluster.get(SECRETS, namespace, name)
    if found is None:
        found = _secret(name)
        try:
            await cluster.create(SECRETS, namespace, found)
        except errors.AlreadyExists:
            found = await cluster.get(SECRETS, namespace, name) or {}
    return _key(found, f"Secret {namespace}/{name}")


def _secret(name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {MANAGED_BY_LABEL: MANAGED_BY}},
        "type": "Opaque",
        "data": {KEY_FIELD: base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()},
    }


def _key(secret: Object, where: str) -> bytes:
    encoded = (secret.get("data") or {}).get(KEY_FIELD) or ""
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if len(key) < KEY_BYTES:
        raise ValueError(
            f"{where} has no field {KEY_FIELD!r} of at least {KEY_BYTES} bytes; delete the Secret and a new one is made "
            "at the next start (running pods then cannot report progress until their next attempt)"
        )
    return key
