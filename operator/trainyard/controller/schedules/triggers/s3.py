"""Reading an object of an S3 store as if it lay at an address: the address, and the signature of the request.

Only a GET of one object is needed, so no S3 library (and its 15 MB of memory) is taken into the operator. The signature is
AWS Signature Version 4 over the headers (docs.aws.amazon.com, "Authenticating Requests: Using the Authorization Header");
the tests hold it against the example of that page and against a server that checks it.
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

SCHEME = "s3://"
DEFAULT_REGION = "us-east-1"
_ALGORITHM = "AWS4-HMAC-SHA256"
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True)
class Store:
    """Where the store is and who asks; the keys of the Secret are those that sources of a run have too."""

    key_id: str = ""
    secret: str = field(default="", repr=False)
    session: str = field(default="", repr=False)
    endpoint: str = ""
    region: str = DEFAULT_REGION

    @classmethod
    def of(cls, secret: Mapping[str, str]) -> "Store":
        """From a Secret's decoded data."""
        return cls(
            key_id=secret.get("AWS_ACCESS_KEY_ID", ""),
            secret=secret.get("AWS_SECRET_ACCESS_KEY", ""),
            session=secret.get("AWS_SESSION_TOKEN", ""),
            endpoint=secret.get("AWS_ENDPOINT_URL", "").rstrip("/"),
            region=secret.get("AWS_REGION", "") or DEFAULT_REGION,
        )

    def address(self, uri: str) -> str:
        """The https:// (or http://) address of `s3://bucket/key`; the bucket stands in the path, as all stores allow it."""
        bucket, _, key = uri.removeprefix(SCHEME).partition("/")
        endpoint = self.endpoint or f"https://s3.{self.region}.amazonaws.com"
        return f"{endpoint}/{quote(bucket)}/{quote(key, safe='/~')}"

    def sign(self, url: str, *, now: datetime, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """The headers of a signed GET without a query; `headers` are signed along. None without credentials."""
        given = dict(headers or {})
        if not (self.key_id and self.secret):
            return given
        parts, moment = urlsplit(url), now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        given |= {"x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
        if self.session:
            given["x-amz-security-token"] = self.session
        signed = {k.lower(): v.strip() for k, v in given.items()} | {"host": parts.netloc}
        names = ";".join(sorted(signed))
        canonical = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
        request = "\n".join(("GET", parts.path, "", canonical, names, _EMPTY))
        scope = f"{moment[:8]}/{self.region}/s3/aws4_request"
        text = "\n".join((_ALGORITHM, moment, scope, hashlib.sha256(request.encode()).hexdigest()))
        key = f"AWS4{self.secret}".encode()
        for word in (moment[:8], self.region, "s3", "aws4_request"):
            key = hmac.new(key, word.encode(), hashlib.sha256).digest()
        signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
        credential = f"Credential={self.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
        return given | {"Authorization": f"{_ALGORITHM} {credential}"}
