"""The `gitPath` trigger: the object id of a file or folder at a branch.

Two questions over smart HTTP: where does the branch stand (ls-remote), and, only when it has moved, which trees belong to
that commit (a fetch of depth 1 without file contents). The id that git gives to a path changes exactly when its content
does, so commits that touch other things start nothing. dulwich speaks the protocol; the pack is read as it comes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository
from dulwich.object_store import ObjectStoreGraphWalker
from dulwich.objects import ObjectID
from urllib3.exceptions import HTTPError

from trainyard.controller.schedules.triggers.answer import Answer, SourceDown
from trainyard.controller.schedules.triggers.door import unreachable
from trainyard.controller.schedules.triggers.pack import Broken, Limits, Object, PackReader, TooLarge

if TYPE_CHECKING:
    from trainyard.api.schedule.triggers import GitPath
    from trainyard.controller.schedules.triggers.door import Door

logging.getLogger("dulwich").setLevel(logging.ERROR)  # it warns at every look at a server that knows no filters

PACK_LIMIT = 64 * 2**20
"""Bytes: the trees of a very large repository; more comes only from a server that sends file contents unasked."""
ABSENT = "absent"
_TOKEN_USER = "oauth2"
"""What GitLab expects beside a token; GitHub, Gitea and Bitbucket take any name."""


def read(door: Door, spec: GitPath, marks: Mapping[str, str], *, limits: Limits | None = None) -> Answer:
    """Ask. Raises `SourceDown`, also for a branch that does not exist. A path that does not exist is an answer.

    `marks` say where the branch stood at the last look, and what the path was there.
    """
    access = door.access
    client = Urllib3HttpGitClient(
        spec.url,
        pool_manager=door,  # type: ignore[arg-type]  # it asks for no more than `headers` and `request`
        username=access.username or (_TOKEN_USER if access.token else None),
        password=access.password or access.token or None,
        quiet=True,
    )
    try:
        commit = _branch(client, spec)
        if (name := commit.decode()) == marks.get("commit"):
            token = marks["token"]
        else:
            token = _id_of_path(_folders(client, spec, commit, limits or Limits()), spec, commit)
    except HTTPUnauthorized:
        raise SourceDown(f"{spec.url} refuses access: check gitPath.secretRef and what it is allowed to read") from None
    except NotGitRepository:
        raise SourceDown(f"{spec.url} is not a git repository over HTTP; check gitPath.url") from None
    except TooLarge as error:
        raise SourceDown(
            f"gitPath.url: {spec.url} sends {error} for one commit, which is not read; let its server allow filters "
            "(uploadpack.allowFilter), or watch a smaller repository"
        ) from None
    except Broken as error:
        raise SourceDown(f"gitPath.url: {spec.url} sends no usable pack: {error}") from None
    except (GitProtocolError, HangupException, HTTPError, OSError) as error:
        raise SourceDown(unreachable(spec.url, error)) from None
    where = spec.path or "the tree"
    told = f"{where} is {token[:12]} at commit {name[:12]} of {spec.ref}"
    return Answer(token, told, marks={"commit": name, "token": token})


def _branch(client: Urllib3HttpGitClient, spec: GitPath) -> ObjectID:
    candidates = [spec.ref.encode()] if spec.ref.startswith("refs/") else []
    candidates += [b"refs/heads/" + spec.ref.encode(), b"refs/tags/" + spec.ref.encode()]
    refs = client.get_refs("", ref_prefix=candidates).refs
    if client.dumb:
        raise NotGitRepository
    found = next((sha for name in candidates if (sha := refs.get(name))), None)  # type: ignore[call-overload]
    if found is None:
        raise SourceDown(f"{spec.url} has no branch or tag {spec.ref}; check gitPath.ref")
    return ObjectID(found)


def _folders(client: Urllib3HttpGitClient, spec: GitPath, commit: ObjectID, limits: Limits) -> Mapping[bytes, Object]:
    reader, size = PackReader(limits), 0

    def take(data: bytes) -> int:
        nonlocal size
        size += len(data)
        if size > PACK_LIMIT:
            raise TooLarge(f"more than {PACK_LIMIT >> 20} MiB")
        reader.feed(data)
        return len(data)

    client.fetch_pack(
        "",
        lambda refs, depth=None: [commit],
        ObjectStoreGraphWalker([], lambda sha: []),
        take,
        depth=1,
        filter_spec=b"blob:none",
    )
    return reader.finish()


def _id_of_path(found: Mapping[bytes, Object], spec: GitPath, commit: bytes) -> str:
    def sent(key: bytes) -> Object:
        if key not in found:
            raise SourceDown(f"{spec.url} does not send {key.decode()[:12]}, which belongs to {spec.ref}")
        return found[key]

    there = sent(commit)
    while there.kind == b"tag":
        there = sent(there.reference() or b"")
    if there.kind != b"commit":
        raise SourceDown(f"{spec.ref} in {spec.url} is not a commit")
    key, is_folder = there.reference() or b"", True
    for name in filter(None, spec.path.encode().split(b"/")):
        entry = next((e for e in sent(key).entries() if e.name == name), None) if is_folder else None
        if entry is None:
            return ABSENT
        key, is_folder = entry.key, entry.is_folder
    return key.decode()
