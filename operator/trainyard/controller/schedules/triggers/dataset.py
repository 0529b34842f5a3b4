"""The `dataset` trigger: the content of a file of lines, over HTTP or in an S3 store.

The server is asked with the marks of the last download (ETag, Last-Modified), so an unchanged file is not sent again.
What has changed is told by a sketch of its lines; the file itself is never kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from urllib3.exceptions import HTTPError

from trainyard.controller.schedules.triggers.answer import Answer, SourceDown
from trainyard.controller.schedules.triggers.door import pieces, unreachable
from trainyard.controller.schedules.triggers.s3 import SCHEME
from trainyard.controller.schedules.triggers.sketch import Sketch

if TYPE_CHECKING:
    from trainyard.api.schedule.triggers import DatasetDrift
    from trainyard.controller.schedules.triggers.door import Door, Response

SIZE_LIMIT = 512 * 2**20


def read(door: Door, spec: DatasetDrift, marks: Mapping[str, str], *, now: datetime | None = None) -> Answer:
    """Ask. Raises `SourceDown`, also for a download that breaks off: half a file is no changed file.

    `marks` are what the last download left; losing them costs one more.
    """
    known = {"Accept-Encoding": "identity", **_only_if_changed(marks)}
    try:
        with _ask(door, spec.url, known, now or datetime.now(UTC)) as answer:
            if answer.status == 304 and "token" in marks:
                return Answer(marks["token"], marks["observed"], marks=marks)
            if where := answer.get_redirect_location():
                raise SourceDown(
                    f"{spec.url}: the store sends its readers to {where}, where a signature and its session token must not "
                    "go; set AWS_ENDPOINT_URL and AWS_REGION of the Secret to where the bucket is"
                )
            if answer.status != 200:
                raise SourceDown(f"{spec.url} answers HTTP {answer.status}; check dataset.url and secretRef")
            sketch = Sketch()
            for piece in pieces(answer, f"dataset.url: {spec.url}", limit=SIZE_LIMIT):
                sketch.feed(piece)
    except (HTTPError, OSError) as error:
        raise SourceDown(unreachable(spec.url, error)) from None
    token = sketch.result()
    observed = f"{sketch.lines} lines, sha256 {token[:12]}"
    left = {"etag": answer.headers.get("ETag", ""), "modified": answer.headers.get("Last-Modified", "")}
    return Answer(token, observed, marks={**left, "token": token, "observed": observed})


def _only_if_changed(marks: Mapping[str, str]) -> dict[str, str]:
    if "token" not in marks:
        return {}
    if etag := marks.get("etag"):
        return {"If-None-Match": etag}
    return {"If-Modified-Since": modified} if (modified := marks.get("modified")) else {}


def _ask(door: Door, url: str, headers: dict[str, str], now: datetime) -> Response:
    """With the credentials in address or headers."""
    if not url.startswith(SCHEME):
        return door.request("GET", url, headers={**door.access.headers(), **headers})
    store = door.access.store
    address = store.address(url)
    return door.request("GET", address, headers=store.sign(address, now=now, headers=headers), redirect=False)
