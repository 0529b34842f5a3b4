"""The `dataset` trigger: the content of a file of lines, over HTTP or in an S3 store.

The server is asked with the marks of the last download (ETag, Last-Modified), so an unchanged file is not sent again.
What has changed is told by a sketch of its lines; the file itself is never kept.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime

import aiohttp
from yarl import URL

from trainyard.api.schedule.triggers import DatasetDrift
from trainyard.controller.schedules.observed import Reading
from trainyard.controller.schedules.triggers.access import Access, SourceDown, unreachable
from trainyard.controller.schedules.triggers.s3 import SCHEME
from trainyard.controller.schedules.triggers.sketch import Sketch

SIZE_LIMIT = 512 * 2**20
DOWNLOAD_SECONDS = 600.0
_CHUNK = 2**20


@dataclass
class Memory:
    """What the last download left; lost at a restart, which costs one more download."""

    etag: str = ""
    modified: str = ""
    reading: Reading | None = None

    def headers(self) -> dict[str, str]:
        """Send it only if it has changed."""
        if self.reading is None:
            return {}
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}


async def read(
    session: aiohttp.ClientSession, spec: DatasetDrift, access: Access, memory: Memory, *, now: datetime
) -> Reading:
    """Ask. Raises `SourceDown`, also for a download that breaks off: half a file is no changed file."""
    url, headers = _request(spec.url, access, {**memory.headers(), "Accept-Encoding": "identity"}, now)
    try:
        async with session.get(
            url,
            headers=headers,
            ssl=access.context() if url.scheme == "https" else True,
            timeout=aiohttp.ClientTimeout(total=DOWNLOAD_SECONDS, sock_connect=20, sock_read=60),
        ) as answer:
            if answer.status == 304 and memory.reading is not None:
                return Reading(now, memory.reading.token, memory.reading.observed)
            if answer.status != 200:
                raise SourceDown(f"{spec.url} answers HTTP {answer.status}; check dataset.url and secretRef")
            sketch = Sketch()
            async for chunk in answer.content.iter_chunked(_CHUNK):
                await asyncio.to_thread(sketch.feed, chunk)
                if sketch.size > SIZE_LIMIT:
                    raise SourceDown(
                        f"{spec.url} is larger than {SIZE_LIMIT >> 20} MiB, which is not downloaded to be compared"
                    )
            memory.etag, memory.modified = answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", "")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise SourceDown(unreachable(spec.url, error)) from None
    token = sketch.result()
    memory.reading = Reading(now, token, f"{sketch.lines} lines, sha256 {token[:12]}")
    return memory.reading


def _request(url: str, access: Access, headers: dict[str, str], now: datetime) -> tuple[URL, dict[str, str]]:
    """Address and headers with the credentials in them."""
    if not url.startswith(SCHEME):
        return URL(url), {**access.headers(), **headers}
    address = access.store.address(url)
    return URL(address, encoded=True), access.store.sign(address, now=now, headers=headers)
