"""`git`: one commit that puts a value into a file of a repository, where a GitOps tool finds it.

prepare: would the branch take a push, is the place there?  ->  send: the commit  ->  back: another one with the value before
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.git import GitFile
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.sources import secret_values
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports import yaml_value
from trainyard.trainer.exports.branch import ALL, Branch, Place, Signature
from trainyard.trainer.exports.exported import Exported, digest_of
from trainyard.trainer.exports.facts import result_of
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter

EXPORT_MARK = "Trainyard-Export"
ROLLBACK_MARK = "Trainyard-Rollback"
PROMOTION_MARK = "Trainyard-Promotion"


@dataclass(frozen=True)
class Account:
    """Who pushes."""

    name: str
    username: str
    password: str
    token: str
    ca: str | None

    @property
    def has_credentials(self) -> bool:
        return bool(self.token or self.username or self.password)


def check(context: RunContext, export: Export, target: GitFile) -> None:
    """Raises UserError: no right to push, no such branch, file or value."""
    with _branch(context, export, target) as branch:
        branch.commit(lambda held: _edited(export, target, held), _signature(target, "check"), dry=True)
    say(f"{export.field}: {target.repository} takes a push to {target.branch}")


def send(
    context: RunContext, export: Export, target: GitFile, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Raises UserError: the server refuses, or does not answer."""
    digest = _digest(context)
    with _branch(context, export, target) as branch:
        mark = _mark(EXPORT_MARK, context, export, digest)
        commit, is_new = branch.commit(lambda held: _edited(export, target, held), _signature(target, mark))
    say(
        f"{export.field}: {target.path} on {target.branch} is in commit {commit}{'' if is_new else ', which was there'}"
    )
    return Exported(
        f"{target.repository}#{target.branch}:{target.path}",
        digest,
        version=commit,
        facts={"value": target.value[:500]},
    )


def promote(context: RunContext, export: Export, target: GitFile, exported: Exported) -> None:
    """Commit the value again where this run's own was taken back; else all was done by `send`. Raises UserError."""
    with _branch(context, export, target) as branch:
        if branch.find(_mark(ROLLBACK_MARK, context, export, exported.digest), branch.fetch()) is None:
            return
        signature = _signature(target, _mark(PROMOTION_MARK, context, export, exported.digest))
        commit, is_new = branch.commit(lambda held: _edited(export, target, held), signature, once=False)
    if is_new:
        say(f"{export.field}: {target.path} on {target.branch} has its value again, in commit {commit}")


def back(context: RunContext, export: Export, target: GitFile, exported: Exported) -> None:
    """Commit the value that stood there before; nothing where another stands there by now. Raises UserError."""
    with _branch(context, export, target) as branch:
        own = _commit_with(branch, _mark(EXPORT_MARK, context, export, exported.digest))
        before = branch.parent(own) if own else None
        written, old = branch.read(own) if own else None, branch.read(before) if before else None
        if written is None or old is None:
            say(f"{export.field}: this run has put nothing in the place of anything, so all stays as it is")
            return
        ours, value = _value(target, written[1]), _value(target, old[1])

        def restore(held: bytes | None) -> bytes | None:
            is_ours = held is not None and _value(target, held) == ours
            return _put(export, target, held, value) if is_ours else None

        signature = _signature(target, _mark(ROLLBACK_MARK, context, export, exported.digest), back=True)
        commit, is_new = branch.commit(restore, signature, once=False)
    if is_new:
        say(f"{export.field}: {target.path} on {target.branch} is as it was before, in commit {commit}")


def _commit_with(branch: Branch, mark: str) -> str | None:
    """The commit with this mark and the one before it, fetched."""
    own = branch.find(mark, branch.fetch())
    if own is None or branch.parent(own) is None:
        own = branch.find(mark, branch.fetch(ALL))
    return own


def _edited(export: Export, target: GitFile, held: bytes | None) -> bytes:
    return _put(export, target, held, target.value)


def _put(export: Export, target: GitFile, held: bytes | None, value: str) -> bytes:
    if target.yaml_path is None:
        return value.encode() if value.endswith("\n") else f"{value}\n".encode()
    if held is None:
        raise invalid_config(
            f"{export.field} {target.repository}: there is no {target.path} on branch {target.branch}",
            hint="correct path; a file that yamlPath changes has to be there",
        )
    try:
        return yaml_value.replace(held.decode(), target.yaml_path, value).encode()
    except (yaml_value.NotThere, UnicodeDecodeError) as error:
        why = error if isinstance(error, yaml_value.NotThere) else "it is no UTF-8"
        raise invalid_config(
            f"{export.field}.yamlPath: {target.path} on branch {target.branch}: {why}",
            hint="correct yamlPath, or write a first value there by hand",
        ) from error


def _value(target: GitFile, content: bytes) -> str:
    """What stands at the place; the empty text where that is not there any more."""
    try:
        text = content.decode()
        return text if target.yaml_path is None else yaml_value.read(text, target.yaml_path)
    except (yaml_value.NotThere, UnicodeDecodeError):
        return ""


def _digest(context: RunContext) -> str:
    result = result_of(context)
    assert result is not None, "an export comes after a training"
    return digest_of(result)


def _mark(word: str, context: RunContext, export: Export, digest: str) -> str:
    return f"{word}: {context.uid}/{export.name}/{digest}"


def _signature(target: GitFile, mark: str, *, back: bool = False) -> Signature:
    message = f"Roll back: {target.message}" if back else target.message
    return Signature(target.author.name, target.author.email, message, mark)


@contextmanager
def _branch(context: RunContext, export: Export, target: GitFile) -> Iterator[Branch]:
    secret = secret_values(target.secret_ref, context.secrets_dir, told=export.field)
    account = Account(
        name=f"export {export.name}",
        username=secret.get("username", ""),
        password=secret.get("password", ""),
        token=secret.get("token", ""),
        ca=secret.get("ca.crt path"),
    )
    place = Place(target.repository, target.branch, target.path, target.branch_from or "")
    with tempfile.TemporaryDirectory(prefix="trainyard-git-", ignore_cleanup_errors=True) as folder:
        yield Branch(place, account, f"{export.field}.repository", Path(folder))
