"""`spec.storage.workspace`: the commit whose files the script of `spec.command` finds in its working directory.

Everything happens in a folder beside, which then takes the place of the workspace: it is there whole or not at all. What is there
stays, whatever the branch does meanwhile, so all attempts of a run work with the same commit. Under the rules of `collect/git.py`
no hook and no filter of the repository runs here.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from trainyard.api.addresses import told
from trainyard.api.names import WORKSPACE_FOLDER
from trainyard.api.run.workspace import GitCheckout
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.git import answers, attempt, environment, explain, fetch_into, last_line
from trainyard.trainer.data.script import fetch_script
from trainyard.trainer.data.sources import secret_values
from trainyard.trainer.errors import UserError, invalid_config, source_unavailable
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import TEMPORARY, flush_folder

FIELD = "spec.storage.workspace.git"
NOTE = "trainyard-commit"
"""In the folder .git: the commit, or of a single file the digest. Only a workspace that is complete has one in its place."""


@dataclass(frozen=True)
class Account:
    """Who asks for the repository (see `collect.git.Login`)."""

    name: str
    username: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    ca: str | None

    @property
    def has_credentials(self) -> bool:
        return bool(self.token or self.username or self.password)


def check_out(context: RunContext, reporter: Reporter) -> None:
    """Have the workspace there, if the run wants one, and tell which commit it is.

    Raises:
        UserError: no such repository, ref or folder, access is refused, nobody answers.
    """
    wanted = context.run.spec.storage.workspace
    if wanted is None:
        return
    folder, source = context.run_dir / WORKSPACE_FOLDER, wanted.git or wanted.script
    assert source is not None
    if folder.is_dir():
        say(f"the workspace is there already: {_version_of(folder)[:19]}")
    else:
        reporter.report(message=told(f"fetching {source.url}"))
        context.run_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{TEMPORARY}workspace-", dir=context.run_dir) as beside:
            files = Path(beside) / "files"
            if wanted.git is not None:
                _fill(files, wanted.git, context, Path(beside))
            if wanted.script is not None:
                (files / ".git").mkdir(parents=True)
                digest = fetch_script(wanted.script, files, secrets=context.secrets_dir)
                (files / ".git" / NOTE).write_text(digest)
            files.rename(folder)
        flush_folder(context.run_dir)
    version = _version_of(folder)
    say(f"workspace: {told(source.url)} is {version[:19]}")
    reporter.report(provenance={"workspace": f"{told(source.url)}@{version}"})


def _version_of(folder: Path) -> str:
    return (folder / ".git" / NOTE).read_text()


def _fill(folder: Path, wanted: GitCheckout, context: RunContext, scratch: Path) -> None:
    values = secret_values(wanted.secret_ref, context.secrets_dir, told=FIELD)
    access = Account(
        "spec.storage.workspace",
        username=values.get("username", ""),
        password=values.get("password", ""),
        token=values.get("token", ""),
        ca=values.get("ca.crt path"),
    )
    variables = answers(wanted.url, access, scratch / "askpass")
    folder.mkdir()
    git = ["git", "-C", str(folder)]
    _here(git, "init", "--quiet")
    # A submodule's address may be one relative to this.
    _here(git, "remote", "add", "origin", wanted.url)
    ref = wanted.ref or "HEAD"
    fetch_into(git, wanted.url, ref, access, variables, field="git.url", invalid=invalid_config)
    commit = _here(git, "rev-parse", "FETCH_HEAD^{commit}")
    if wanted.sparse_paths:
        _check_folders(git, commit, wanted)
        _here(git, "sparse-checkout", "set", "--cone", *wanted.sparse_paths)
    _here(git, "checkout", "--quiet", "--detach", commit)
    if wanted.submodules:
        _fetch_submodules(git, wanted, access, variables)
    (folder / ".git" / NOTE).write_text(commit)
    shutil.rmtree(folder / ".git" / "hooks", ignore_errors=True)


def _check_folders(git: list[str], commit: str, wanted: GitCheckout) -> None:
    """Raises UserError if there is no such folder: git itself would check out nothing without a word."""
    for number, path in enumerate(wanted.sparse_paths):
        kind = subprocess.run(
            [*git, "cat-file", "-t", f"{commit}:{path.strip('/')}"], env=environment(), capture_output=True, text=True
        )
        if kind.stdout.strip() != "tree":
            raise invalid_config(
                f"{FIELD}.sparsePaths[{number}] {path}: {told(wanted.url)} has no such folder at {wanted.ref or 'HEAD'} "
                f"(commit {commit[:12]})",
                hint="name a folder from the repository's root, or leave sparsePaths out",
            )


def _fetch_submodules(git: list[str], wanted: GitCheckout, access: Account, variables: dict[str, str]) -> None:
    said = attempt([*git, "submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"], variables)
    if said is None:
        return
    fault = explain(said, wanted.url, wanted.ref or "HEAD", access, "git.submodules of", invalid_config)
    if isinstance(fault, UserError):
        raise invalid_config(
            fault.message,
            hint="check .gitmodules: a submodule on another host than url has to be public; or set submodules: false",
        )
    raise source_unavailable(
        f"{FIELD}.submodules: a submodule of {told(wanted.url)} cannot be fetched: {fault}",
        hint="check its address in .gitmodules, or set submodules: false",
    )


def _here(git: list[str], *words: str) -> str:
    """What git answers to something that asks nobody else. Raises OSError, as a volume that is full does."""
    done = subprocess.run([*git, *words], env=environment(), stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"git {words[0]} in the workspace: {last_line(done.stderr)}")
    return done.stdout.decode().strip()
