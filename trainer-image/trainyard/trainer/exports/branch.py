"""Commits on one branch of a repository over HTTP, without a work tree and without force.

    fetch the branch  ->  make a commit on what is there  ->  push it  ->  somebody was faster? once more from the beginning

git itself talks to the server, with the credentials and under the rules of `data/collect/git.py`: no hook or filter runs, and
only the scheme, host and port that the manifest names are given a password. A commit carries a line that names the export it is
of, so one that has arrived is known again by a process that comes after one that was killed.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainyard.trainer.data.collect.git import Login, answers, environment, explain, fetch_once, git_at
from trainyard.trainer.errors import UserError, first_line, invalid_config, source_unavailable
from trainyard.trainer.log import say

DEPTH = 50
"""Commits that are fetched, and looked through for one's own."""
ALL = 2**31 - 1
"""As a depth: the whole history."""
TRIES = 12
LARGEST = 1 << 20
PUSH_TIMEOUT = 600.0
REGULAR = ("100644", "100755")
FASTER = re.compile(
    r"fetch first|non-fast-forward|stale info|failed to update ref|cannot lock ref|reference already exists|incorrect old value"
)

Edit = Callable[[bytes | None], bytes | None]
"""The file's new content from the one that is there (None: there is no such file); None: it stays as it is."""


@dataclass(frozen=True)
class Place:
    """A file on a branch."""

    url: str
    branch: str
    path: str
    branch_from: str = ""
    """Where the branch begins if it is not there."""


@dataclass(frozen=True)
class Signature:
    """Who commits, and with which words."""

    name: str
    email: str
    message: str
    mark: str
    """Line at the end of the message by which the commit is known again."""


@dataclass
class Branch:
    """The branch, as a bare repository in a scratch folder knows it. All raise UserError."""

    place: Place
    login: Login
    field: str
    folder: Path
    _variables: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._variables = answers(self.place.url, self.login, self.folder / "askpass")
        self._git("init", "--quiet", "--bare")

    def commit(self, edit: Edit, signature: Signature, *, once: bool = True, dry: bool = False) -> tuple[str, bool]:
        """Have the file as `edit` makes it. Returns the commit it is in, and whether that was made now.

        Nothing is committed where nothing changes, or, with `once`, where the commit with this mark is there already. With `dry`
        all is asked that a push asks, and nothing is pushed.
        """
        fault = ""
        for number in range(TRIES):
            head = self.fetch()
            if once and not dry and (own := self.find(signature.mark, head)) is not None:
                return own, False
            before = self.read(head)
            after = edit(before[1] if before else None)
            if after is None or (before is not None and before[1] == after and not dry):
                return head, False
            made = self._write(head, before[0] if before else REGULAR[0], after, signature)
            fault = self._push(made, dry=dry)
            if not fault:
                return made, not dry
            say(f"{self.login.name}: {fault}; trying again")
            time.sleep(random.uniform(0.1, 0.4) * (number + 1))
        raise source_unavailable(
            f"{self._told}: no commit got through in {TRIES} tries: {fault}", hint="another attempt is made by itself"
        )

    def fetch(self, depth: int = DEPTH) -> str:
        """The branch's newest commit; where there is no such branch, that of the one it begins from."""
        last = ""
        for branch in filter(None, (self.place.branch, self.place.branch_from)):
            for pause in (1.0, 3.0, None):
                said = fetch_once(
                    git_at(self.folder),
                    f"--depth={depth}",
                    url=self.place.url,
                    ref=f"refs/heads/{branch}",
                    variables=self._variables,
                )
                if said is None:
                    return self._git("rev-parse", "FETCH_HEAD^{commit}")
                if "couldn't find remote ref" in said:
                    last = branch
                    break
                self._give_up_or_wait(said, branch, pause)
        raise invalid_config(
            f"{self._told}: there is no branch {last}",
            hint="correct branch, or name in branchFrom the branch that it is to begin from",
        )

    def read(self, commit: str) -> tuple[str, bytes] | None:
        """Mode and content of the file in a commit; None where it has none."""
        listed = self._git("ls-tree", "-z", "--full-tree", commit, "--", self.place.path).rstrip("\0")
        if not listed:
            return None
        mode, kind, name = listed.partition("\t")[0].split()
        if kind != "blob" or mode not in REGULAR:
            raise invalid_config(f"{self._told}: {self.place.path} is no regular file", hint="correct path")
        if int(self._git("cat-file", "-s", name)) > LARGEST:
            raise invalid_config(f"{self._told}: {self.place.path} is larger than 1 MiB", hint="name a smaller file")
        return mode, self._raw("cat-file", "blob", name)

    def find(self, mark: str, head: str) -> str | None:
        """The newest fetched commit whose message has this line."""
        words = ("log", "--max-count=1", "--format=%H", "--fixed-strings", f"--grep={mark}", head)
        return self._git(*words) or None

    def parent(self, commit: str) -> str | None:
        """The commit before, if it was fetched."""
        words = self._git("rev-list", "--parents", "--max-count=1", commit).split()
        return words[1] if len(words) > 1 else None

    def _write(self, parent: str, mode: str, content: bytes, signature: Signature) -> str:
        index = self.folder / "export-index"
        index.unlink(missing_ok=True)
        blob = self._git("hash-object", "-w", "--stdin", stdin=content)
        self._git("read-tree", parent, index=index)
        try:
            self._git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{self.place.path}", index=index)
        except OSError as error:
            raise invalid_config(
                f"{self._told}: {self.place.path} cannot be a file there",
                hint="correct path: git takes no .git in it, and no folder of it may be a file",
            ) from error
        tree = self._git("write-tree", index=index)
        message = f"{signature.message.strip()}\n\n{signature.mark}\n".encode()
        return self._git("commit-tree", tree, "-p", parent, stdin=message, signature=signature)

    def _push(self, commit: str, *, dry: bool) -> str:
        """Empty, or what another try may not meet."""
        command = [*git_at(self.folder), "push", "--porcelain", *(["--dry-run"] if dry else [])]
        command += [self.place.url, f"{commit}:refs/heads/{self.place.branch}"]
        try:
            done = subprocess.run(
                command,
                env=environment(**self._variables),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=PUSH_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            return f"the push did not end in {PUSH_TIMEOUT:.0f} s"
        if done.returncode == 0:
            return ""
        said = done.stderr.decode(errors="replace")
        refused = next((line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("!")), "")
        if "invalid refspec" in said:
            raise invalid_config(f"{self._told}: git allows no branch {self.place.branch}", hint="correct branch")
        if not refused:
            lines = [line for line in said.splitlines() if line.startswith(("fatal:", "error:"))] or [said]
            fault = explain(
                lines[0].partition(": ")[2] or lines[0],
                self.place.url,
                self.place.branch,
                self.login,
                self.field,
                invalid_config,
            )
            if isinstance(fault, UserError):
                raise fault
            return fault
        why = refused.rpartition("\t")[2]
        if FASTER.search(why):
            return f"somebody else has pushed to {self.place.branch} meanwhile"
        words = " ".join(
            line.removeprefix("remote:").strip() for line in said.splitlines() if line.startswith("remote:")
        )
        raise invalid_config(
            f"{self._told}: the server refuses a commit on branch {self.place.branch}: {first_line(f'{why} {words}', 300)}",
            hint="let this account push to that branch, or commit to another one (branch and branchFrom) and merge that",
        )

    def _give_up_or_wait(self, said: str, branch: str, pause: float | None) -> None:
        fault = explain(said, self.place.url, branch, self.login, self.field, invalid_config)
        if isinstance(fault, UserError):
            raise fault
        if pause is None:
            raise source_unavailable(
                f"{self._told} gave no answer in 3 tries: {fault}", hint="check that the server is up and reachable"
            )
        say(f"{self._told}: {fault}; trying again")
        time.sleep(pause)

    @property
    def _told(self) -> str:
        return f"{self.field} {self.place.url}"

    def _git(
        self, *words: str, stdin: bytes = b"", index: Path | None = None, signature: Signature | None = None
    ) -> str:
        return os.fsdecode(self._raw(*words, stdin=stdin, index=index, signature=signature)).strip()

    def _raw(
        self, *words: str, stdin: bytes = b"", index: Path | None = None, signature: Signature | None = None
    ) -> bytes:
        more = {"GIT_INDEX_FILE": str(index)} if index else {}
        if signature:
            for who in ("AUTHOR", "COMMITTER"):
                more |= {f"GIT_{who}_NAME": signature.name, f"GIT_{who}_EMAIL": signature.email}
        try:
            done = subprocess.run(
                [*git_at(self.folder), *words], env=environment(**more), input=stdin, capture_output=True
            )
        except FileNotFoundError as error:
            raise invalid_config(
                "there is no git in this image", hint="use the trainer image, or install git in your own"
            ) from error
        if done.returncode != 0:
            raise OSError(f"git {words[0]}: {done.stderr.decode(errors='replace').strip()[:300]}")
        return done.stdout
