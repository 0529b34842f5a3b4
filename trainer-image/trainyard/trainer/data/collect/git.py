"""One commit of a git repository over HTTP, without its history and without a work tree.

git itself fetches it: servers, proxies and protocol versions are its business. It is told everything through its
environment. Credentials stand there too, where `ps` and a log do not show them, and reach git by its own question for
them (GIT_ASKPASS). After a redirect git asks anew, in the name of the host that it was led to; only questions in the name
of the scheme, host and port that the manifest names are answered. No configuration of the machine or of the repository is
read, no hook or filter runs, and nothing is checked out, so a repository cannot make this step do anything but read.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.http import PAUSES
from trainyard.trainer.data.collect.journal import Journal
from trainyard.trainer.errors import UserError, invalid_config, invalid_data, source_unavailable
from trainyard.trainer.log import say

ASKPASS = """#!/bin/sh
case "$1" in
"Username for '$TRAINYARD_GIT_ORIGIN': ") printf %s "$TRAINYARD_GIT_USERNAME" ;;
"Password for '$TRAINYARD_GIT_USER_AT_ORIGIN': " | "Password for '$TRAINYARD_GIT_QUOTED_USER_AT_ORIGIN': ")
  printf %s "$TRAINYARD_GIT_PASSWORD" ;;
*) exit 1 ;;
esac
"""
"""Whole questions are compared: a part of one could stand in an address that somebody else has chosen."""
FETCH_TIMEOUT = 3600.0
SLOW_SECONDS = "60"
"""A transfer that brings less than a kilobyte a second for so long is broken off."""
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NO_REPOSITORY = "not valid: is this a git repository"
"""What git says of most web pages."""
_ASKED = re.compile(r"could not read Username for '([^']*)'")
_REGULAR = ("100644", "100755")


class Login(Protocol):
    """Who asks for a repository, and how messages begin."""

    @property
    def name(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def ca(self) -> str | None: ...
    @property
    def has_credentials(self) -> bool: ...


@dataclass(frozen=True)
class Blob:
    """A file of a commit."""

    path: str
    name: str
    """The object's name in the repository."""
    size: int


@dataclass(frozen=True)
class Repository:
    """A bare repository with one commit."""

    folder: Path
    commit: str

    def blobs(self, path: str) -> list[Blob]:
        """Regular files below `path`, by path; no links, no submodules. Raises UserError if there is no such folder."""
        tree = f"{self.commit}:{path.strip('/')}" if path else self.commit
        listed = subprocess.run(
            [*git_at(self.folder), "ls-tree", "-r", "-l", "-z", "--full-tree", tree],
            env=environment(),
            capture_output=True,
        )
        if listed.returncode != 0:
            raise invalid_data(
                f"the repository has no folder {path!r} at commit {self.commit[:12]}", hint="check path and ref"
            )
        found = []
        for entry in listed.stdout.split(b"\0"):
            if entry:
                about, _, name = entry.partition(b"\t")
                mode, kind, object_name, size = about.decode().split()
                if mode in _REGULAR and kind == "blob":
                    found.append(Blob(os.fsdecode(name), object_name, int(size)))
        return sorted(found, key=lambda b: b.path)

    def contents(self, blobs: list[Blob]) -> Iterator[tuple[Blob, bytes]]:
        """Each file's bytes, one at a time."""
        process = subprocess.Popen(
            [*git_at(self.folder), "cat-file", "--batch"],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            for blob in blobs:
                process.stdin.write(f"{blob.name}\n".encode())
                process.stdin.flush()
                head = process.stdout.readline().split()
                if len(head) != 3:
                    raise OSError(f"{self.folder}: git has no object {blob.name} ({blob.path})")
                content = process.stdout.read(int(head[2]))
                process.stdout.read(1)
                yield blob, content
            process.stdin.close()


def fetch(url: str, ref: str | None, access: Access, journal: Journal, *, field: str) -> Repository:
    """The repository at `ref`, fetched once; the commit is noted, so that a later attempt has the same one.

    Raises:
        UserError: no such repository or ref, access refused, no answer.
    """
    wanted = ref or "HEAD"
    folder = journal.place("repository", lambda to: _fetch(url, wanted, access, to, field))
    commit = _read(folder, "rev-parse", "FETCH_HEAD^{commit}")
    say(f"{access.name}: {url} at {wanted} is commit {commit[:12]}")
    return Repository(folder, commit)


def unignored(folder: Path, scratch: Path) -> list[str]:
    """Paths of the files in a folder that no .gitignore in it names; links and repositories inside it are left out."""
    index = scratch / "ignore-rules.git"
    if not index.exists():
        _run(["git", "init", "--quiet", "--bare", str(index)], {}, "git init", scratch)
    listed = subprocess.run(
        ["git", "-C", str(folder), "ls-files", "-z", "--others", "--exclude-standard"],
        env=environment(GIT_DIR=str(index), GIT_WORK_TREE=str(folder)),
        capture_output=True,
    )
    if listed.returncode != 0:
        raise OSError(f"{folder}: {last_line(listed.stderr)}")
    return sorted(os.fsdecode(name) for name in listed.stdout.split(b"\0") if name and not name.endswith(b"/"))


def _fetch(url: str, ref: str, access: Access, to: Path, field: str) -> None:
    script = to.parent / ".tmp-askpass"
    variables = answers(url, access, script)
    _run([*git_at(to), "init", "--quiet", "--bare"], {}, "git init", to)
    fetch_into(git_at(to), url, ref, access, variables, field=field)
    script.unlink()


def fetch_into(
    git: list[str],
    url: str,
    ref: str,
    access: Login,
    variables: dict[str, str],
    *,
    field: str,
    invalid: Callable[..., UserError] = invalid_data,
) -> None:
    """Have FETCH_HEAD in a repository, `git` being the words that call git there; `variables` are those of `answers`.

    Raises:
        UserError: no such repository or ref, access refused, no answer.
    """
    for pause in (*PAUSES, None):
        told = fetch_once(git, "--depth=1", url=url, ref=ref, variables=variables)
        if told is None:
            return
        fault = explain(told, url, ref, access, field, invalid)
        if isinstance(fault, UserError):
            raise fault
        if pause is None:
            raise source_unavailable(
                f"{access.name}: {field} {url} gave no answer in {len(PAUSES) + 1} tries: {fault}",
                hint="check that the server is up and reachable",
            )
        say(f"{access.name}: {url}: {fault}; trying again")
        time.sleep(pause)


def answers(url: str, access: Login, script: Path) -> dict[str, str]:
    """Variables by which git gets the credentials. `script` is where ASKPASS is put, which says what to which questions.

    Newer versions of git put the user's name into one as in an address.
    """
    script.write_text(ASKPASS)
    script.chmod(0o700)
    parts = urlsplit(url)
    user = access.username or "git"  # hosts take a token as the password of any user
    return {
        "GIT_ASKPASS": str(script),
        **({"GIT_SSL_CAINFO": access.ca} if access.ca else {}),
        "TRAINYARD_GIT_USERNAME": user,
        "TRAINYARD_GIT_PASSWORD": access.token or access.password,
        "TRAINYARD_GIT_ORIGIN": origin(url),
        "TRAINYARD_GIT_USER_AT_ORIGIN": f"{parts.scheme}://{user}@{parts.netloc}",
        "TRAINYARD_GIT_QUOTED_USER_AT_ORIGIN": f"{parts.scheme}://{quote(user, safe='')}@{parts.netloc}",
    }


def origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def explain(
    told: str, url: str, ref: str, access: Login, field: str, invalid: Callable[..., UserError] = invalid_data
) -> UserError | str:
    """What git said, as a fault of the manifest, or as a sentence about what may pass."""
    place = f"{access.name}: {field} {url}"
    if "Could not resolve host" in told:
        return invalid(f"{place}: the host is unknown", hint=f"check {field} for typing errors")
    if "unexpected TLS packet" in told or "wrong version number" in told:
        return invalid(f"{place}: the server speaks http, not https", hint=f"write http:// in {field}")
    if "SSL certificate" in told or "certificate verif" in told or "certificate is not trusted" in told:
        return invalid(
            f"{place}: the server's certificate is not trusted",
            hint="put the issuing CA into the secret of secretRef as ca.crt",
        )
    asked = _ASKED.search(told)
    if asked and asked[1] != origin(url):
        kept = f", and the credentials of secretRef are for {origin(url)} alone" if access.has_credentials else ""
        return invalid(
            f"{place}: leads to {asked[1]}, which asks for a password{kept}",
            hint=f"give that repository's own address in {field}, with a secretRef whose values may go there",
        )
    if any(
        w in told
        for w in ("Authentication failed", "could not read Username", "returned error: 401", "returned error: 403")
    ):
        advice = "check the values in secretRef" if access.has_credentials else "give secretRef with the credentials"
        return invalid(f"{place}: access is refused", hint=advice)
    if "couldn't find remote ref" in told or "not our ref" in told or "unadvertised object" in told:
        known = " (the server gives out branches and tags only)" if _COMMIT.fullmatch(ref) else ""
        return invalid(f"{place}: there is no ref {ref}{known}", hint="check ref: a branch, a tag or a commit")
    if NO_REPOSITORY in told:
        return invalid(
            f"{place}: what answers there is no git repository or an empty one; it may be a web page",
            hint=f"write in {field} the address that git clone takes; where the page asks to sign in, give secretRef",
        )
    if "not found" in told or "returned error: 404" in told:
        return invalid(f"{place}: there is no such repository", hint="check the address; a private one may look absent")
    return told


def fetch_once(git: list[str], *words: str, url: str, ref: str, variables: dict[str, str]) -> str | None:
    """One `git fetch`; None, or what git said. A page of HTML without a line that looks like a ref is an empty repository to it."""
    told = attempt([*git, "fetch", "--quiet", "--no-tags", "--no-recurse-submodules", *words, url, ref], variables)
    if told is not None and "couldn't find remote ref" in told:
        done = subprocess.run(
            [*git, "ls-remote", url],
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=FETCH_TIMEOUT,
        )
        if done.returncode == 0 and not done.stdout.strip():
            return NO_REPOSITORY
    return told


def attempt(command: list[str], variables: dict[str, str]) -> str | None:
    """None, or the last line of what git said."""
    try:
        done = subprocess.run(
            command, env=environment(**variables), stdin=subprocess.DEVNULL, capture_output=True, timeout=FETCH_TIMEOUT
        )
    except FileNotFoundError as error:
        raise invalid_config(
            "there is no git in this image", hint="use the trainer image, or install git in your own"
        ) from error
    except subprocess.TimeoutExpired:
        return f"no end after {FETCH_TIMEOUT:.0f} s"
    return None if done.returncode == 0 else last_line(done.stderr)


def _run(command: list[str], variables: dict[str, str], what: str, place: Path) -> None:
    if (told := attempt(command, variables)) is not None:
        raise OSError(f"{what} in {place}: {told}")


def _read(folder: Path, *words: str) -> str:
    done = subprocess.run([*git_at(folder), *words], env=environment(), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def git_at(folder: Path) -> list[str]:
    return ["git", "--git-dir", str(folder)]


def environment(**more: str) -> dict[str, str]:
    settings = {
        "http.followRedirects": "initial",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": SLOW_SECONDS,
        "http.userAgent": "trainyard",
        "credential.helper": "",
        "core.hooksPath": os.devnull,
        "gc.auto": "0",
        "safe.directory": "*",
    }
    kept = {
        k: os.environ[k]
        for k in ("PATH", "SSL_CERT_FILE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
        if k in os.environ
    }
    pairs = enumerate(settings.items())
    return {
        **kept,
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "http:https",
        "GIT_CONFIG_COUNT": str(len(settings)),
        **{
            name: text
            for i, (k, v) in pairs
            for name, text in ((f"GIT_CONFIG_KEY_{i}", k), (f"GIT_CONFIG_VALUE_{i}", v))
        },
        **more,
    }


def last_line(told: bytes) -> str:
    """Of what git said on its way out, the line that tells why."""
    lines = [line for line in told.decode(errors="replace").splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (telling or lines or ["git ended without a word"])[-1].removeprefix("fatal: ").removeprefix("error: ")
