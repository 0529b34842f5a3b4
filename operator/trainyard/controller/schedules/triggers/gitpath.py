"""The `gitPath` trigger: the object id of a file or folder at a branch.

Two questions over smart HTTP: where does the branch stand (ls-remote), and, only when it has moved, which trees belong to
that commit (a fetch of depth 1 without file contents). The id that git gives to a path changes exactly when its content
does, so commits that touch other things start nothing. dulwich speaks the protocol; it blocks, so it runs in a thread.
"""

import asyncio
import logging
import tempfile
from dataclasses import dataclass
from datetime import datetime

import urllib3
from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import MemoryObjectStore, tree_lookup_path
from dulwich.objects import Commit, ObjectID, Tag
from dulwich.pack import PackData, PackInflater
from dulwich.repo import MemoryRepo

from trainyard.api.schedule.triggers import GitPath
from trainyard.controller.schedules.observed import Reading
from trainyard.controller.schedules.triggers.access import TIMEOUT_SECONDS, Access, SourceDown, unreachable

logging.getLogger("dulwich").setLevel(logging.ERROR)  # it warns at every look at a server that knows no filters

PACK_LIMIT = 64 * 2**20
"""Bytes: the trees of a very large repository; more comes only from a server that sends file contents unasked."""
ABSENT = "absent"
_TOKEN_USER = "oauth2"
"""What GitLab expects beside a token; GitHub, Gitea and Bitbucket take any name."""


@dataclass
class Memory:
    """Where the branch stood, and what the path was there."""

    commit: bytes = b""
    token: str = ""


async def read(spec: GitPath, access: Access, memory: Memory, *, now: datetime) -> Reading:
    """Ask. Raises `SourceDown`, also for a branch that does not exist. A path that does not exist is an answer."""
    try:
        return await asyncio.to_thread(_read, spec, access, memory, now)
    except HTTPUnauthorized:
        raise SourceDown(f"{spec.url} refuses access: check gitPath.secretRef and what it is allowed to read") from None
    except NotGitRepository:
        raise SourceDown(f"{spec.url} is not a git repository over HTTP; check gitPath.url") from None
    except (GitProtocolError, HangupException, urllib3.exceptions.HTTPError, OSError) as error:
        raise SourceDown(unreachable(spec.url, error)[:900]) from None


def _read(spec: GitPath, access: Access, memory: Memory, now: datetime) -> Reading:
    with urllib3.PoolManager(
        ssl_context=access.context(), timeout=urllib3.Timeout(TIMEOUT_SECONDS), retries=urllib3.Retry(1, redirect=5)
    ) as pool:
        client = _client(spec, access, pool)
        commit = _branch(client, spec)
        if commit != memory.commit:
            token = _object_at(client, spec, commit)
            memory.commit, memory.token = commit, token
    where = spec.path or "the tree"
    return Reading(now, memory.token, f"{where} is {memory.token[:12]} at commit {commit.decode()[:12]} of {spec.ref}")


def _client(spec: GitPath, access: Access, pool: urllib3.PoolManager) -> Urllib3HttpGitClient:
    return Urllib3HttpGitClient(
        spec.url,
        pool_manager=pool,
        username=access.username or (_TOKEN_USER if access.token else None),
        password=access.password or access.token or None,
        quiet=True,
    )


def _branch(client: Urllib3HttpGitClient, spec: GitPath) -> ObjectID:
    candidates = [spec.ref.encode()] if spec.ref.startswith("refs/") else []
    candidates += [b"refs/heads/" + spec.ref.encode(), b"refs/tags/" + spec.ref.encode()]
    refs = client.get_refs("", ref_prefix=candidates).refs
    found = next((sha for name in candidates if (sha := refs.get(name))), None)  # type: ignore[call-overload]
    if found is None:
        raise SourceDown(f"{spec.url} has no branch or tag {spec.ref}; check gitPath.ref")
    return ObjectID(found)


def _object_at(client: Urllib3HttpGitClient, spec: GitPath, commit: ObjectID) -> str:
    store = MemoryObjectStore()
    with tempfile.SpooledTemporaryFile(max_size=4 * 2**20) as pack:

        def take(data: bytes) -> int:
            if pack.tell() + len(data) > PACK_LIMIT:
                raise SourceDown(f"{spec.url} sends more than {PACK_LIMIT >> 20} MiB for one commit's folders")
            return pack.write(data)

        client.fetch_pack(
            "",
            lambda refs, depth=None: [commit],
            MemoryRepo().get_graph_walker([]),
            take,
            depth=1,
            filter_spec=b"blob:none",
        )
        size = pack.tell()
        pack.seek(0)
        if not size:
            raise SourceDown(f"{spec.url} sends nothing for commit {commit.decode()[:12]}")
        data = PackData.from_file(pack, store.object_format, size)
        for found in PackInflater.for_pack_data(data, store.get_raw):
            store.add_object(found)
    there = store[commit]
    while isinstance(there, Tag):
        there = store[there.object[1]]
    if not isinstance(there, Commit):
        raise SourceDown(f"{spec.ref} in {spec.url} is not a commit")
    if not spec.path:
        return str(there.tree.decode())
    try:
        _, found_id = tree_lookup_path(store.__getitem__, there.tree, spec.path.strip("/").encode())
    except (KeyError, NotADirectoryError):
        return ABSENT
    return str(found_id.decode())
