"""`spec.storage.workspace`: where the script of `spec.command`, or the callbacks of `spec.training`, come from."""

import re
from typing import Annotated, ClassVar

from pydantic import Field

from trainyard.api.addresses import HttpUrl
from trainyard.api.base import ApiModel, Rule, SecretRef, exactly_one
from trainyard.api.run.collectors import Ref

SPARSE_LIMIT = 32

RepositoryFolder = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^/\s\\!*?\[#-][^\s\\*?\[]*$")]
"""A folder by its name: what git would read as a pattern or an option is none."""


class GitCheckout(ApiModel):
    """A commit of a git repository, with its files."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.sparsePaths) || self.sparsePaths.all(p, !p.contains('..'))",
            "sparsePaths has a path with ..: name folders from the repository's root",
            lambda g: all(".." not in path for path in g.sparse_paths),
        ),
    )

    url: HttpUrl = Field(
        description="https:// or http:// address of the repository. One commit is fetched, without history."
    )
    ref: Ref | None = Field(
        None,
        description="Branch, tag or commit. Default: the repository's default branch. The commit that it stands for at the run's "
        "beginning is kept for all attempts, and told in status.provenance.workspace.",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with username and password, or token, optionally ca.crt. The script's own pod does not get it.",
    )
    submodules: bool = Field(
        False,
        description="Fetch submodules too, at any depth. Those on another host than url must be public: the Secret is for url's "
        "host alone.",
    )
    sparse_paths: list[RepositoryFolder] = Field(
        default_factory=list,
        max_length=SPARSE_LIMIT,
        description="Only these folders, and the files beside them on the way. Default: the whole repository.",
    )


class Script(ApiModel):
    """One file from a web server."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            r"self.url.matches('^https?://[^/?#]+(/[^/?#]*)*/[A-Za-z0-9_][A-Za-z0-9_.-]*([?#].*)?$')",
            "storage.workspace.script.url must end with the name of a file: letters, digits, -, _ and .",
            lambda s: re.match(r"https?://[^/?#]+(/[^/?#]*)*/[A-Za-z0-9_][A-Za-z0-9_.-]*([?#].*)?$", s.url) is not None,
        ),
    )

    url: HttpUrl = Field(description="https:// or http:// address. The file keeps the name that it has there.")
    sha256: str = Field(
        min_length=64,
        max_length=64,
        pattern=r"^[0-9a-f]{64}$",
        description="Digest of the file (sha256sum). Another file is refused before anything starts.",
    )
    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with username and password, or token, optionally ca.crt. The script's own pod does not get it.",
    )


class Workspace(ApiModel):
    """Files in the working directory of spec.command, and modules of training.callbacks: on the checkpoint volume, in the run's folder."""

    rules: ClassVar[tuple[Rule, ...]] = (
        exactly_one(
            "git",
            "script",
            message="storage.workspace is either a repository (git) or one file (script): give exactly one",
        ),
    )

    git: GitCheckout | None = Field(
        None, description="A commit of a git repository. It is checked out before the script starts."
    )
    script: Script | None = Field(None, description="One file by its address and digest.")
