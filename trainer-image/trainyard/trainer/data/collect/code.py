"""Code: the text files of a repository or folder, one record each, without secrets.

A file is taken if its path matches (by default: if its language is known), if it is no larger than the bound and if it is
text. Everything else is counted by the reason and said at the end, because a dataset that silently lost half of its files
looks like one that never had them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainyard.api.addresses import told
from trainyard.api.run.collectors import CodeSource
from trainyard.trainer.data.collect import Record, Window
from trainyard.trainer.data.collect.access import Access
from trainyard.trainer.data.collect.git import Repository, fetch, unignored
from trainyard.trainer.data.collect.globs import matcher
from trainyard.trainer.data.collect.journal import Journal
from trainyard.trainer.data.collect.languages import LEFT_OUT, language_of
from trainyard.trainer.data.collect.secrets import SECRET_FILES, redact
from trainyard.trainer.errors import invalid_data
from trainyard.trainer.log import say
from trainyard.trainer.volume.claims import folder_of


@dataclass(frozen=True)
class Tree:
    """Files with their sizes, and a way to read them in this order."""

    repository: str
    commit: str
    files: list[tuple[str, int]]
    read: Repository | Path
    prefix: str = ""
    """Folder of the repository that the paths are relative to."""

    def contents(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        """Path and bytes of the wanted files."""
        if isinstance(self.read, Repository):
            blobs = [b for b in self.read.blobs(self.prefix) if b.path in wanted]
            for blob, content in self.read.contents(blobs):
                yield blob.path, content
        else:
            for path, _ in self.files:
                if path in wanted:
                    yield path, (self.read / path).read_bytes()


def collect(source: CodeSource, access: Access, window: Window | None, journal: Journal) -> Iterator[Record]:
    """One record per file, by path."""
    tree = open_tree(source.url, source.storage_uri, source.ref, access, journal, path=source.path, field="code.url")
    wanted, passed = choose(tree, source)
    total = sum(size for path, size in tree.files if path in wanted)
    if total > source.max_total_bytes:
        raise invalid_data(
            f"{access.name}: {tree.repository}: {len(wanted)} files of {total} bytes together are more than "
            f"code.maxTotalBytes ({source.max_total_bytes})",
            hint="narrow code.include or code.path, or raise code.maxTotalBytes",
        )
    secrets: Counter[str] = Counter()
    taken = 0
    for path, content in tree.contents(wanted):
        text = _text(content)
        if text is None:
            passed["not text"] += 1
            continue
        before = secrets.total()
        clean = redact(text, secrets)
        if secrets.total() > before and source.secrets == "DropFile":
            passed["with a secret in it"] += 1
            continue
        taken += 1
        yield {
            "kind": "code",
            "path": path,
            "language": language_of(path) or "text",
            "text": clean,
            "repository": tree.repository,
            "commit": tree.commit,
        }
    left = ", ".join(f"{count} {reason}" for reason, count in sorted(passed.items())) or "none"
    say(f"{access.name}: {taken} files taken; left out: {left}")
    if secrets:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(secrets.items()))
        say(f"{access.name}: {secrets.total()} secrets found and left out: {kinds}")


def open_tree(
    url: str | None,
    storage_uri: str | None,
    ref: str | None,
    access: Access,
    journal: Journal,
    *,
    path: str,
    field: str,
) -> Tree:
    """The files of a repository or of a folder on a volume."""
    if url is not None:
        repository = fetch(url, ref, access, journal, field=field)
        files = [(blob.path, blob.size) for blob in repository.blobs(path)]
        return Tree(told(url), repository.commit, files, repository, path)
    assert storage_uri is not None
    place = f"{access.name}: {field.replace('.url', '.storageUri')} {storage_uri}"
    folder = folder_of(f"{storage_uri}/{path}", access.volumes, told=place, invalid=invalid_data)
    found = []
    for name in unignored(folder, journal.folder):
        file = folder / name
        if not file.is_symlink() and file.is_file():
            found.append((name, file.stat().st_size))
    return Tree(storage_uri, "", found, folder)


def choose(tree: Tree, source: CodeSource) -> tuple[set[str], Counter[str]]:
    """The files to read, and how many are left out for which reason."""
    include = matcher(source.include) if source.include else None
    exclude, generated, secret = matcher(source.exclude), matcher(LEFT_OUT), matcher(SECRET_FILES)
    wanted: set[str] = set()
    passed: Counter[str] = Counter()
    for path, size in tree.files:
        if reason := _reason(path, size, source.max_file_bytes, include, exclude, generated, secret):
            passed[reason] += 1
        else:
            wanted.add(path)
    return wanted, passed


def _reason(
    path: str,
    size: int,
    largest: int,
    include: re.Pattern[str] | None,
    exclude: re.Pattern[str],
    generated: re.Pattern[str],
    secret: re.Pattern[str],
) -> str | None:
    if secret.fullmatch(path):
        return "with credentials by their name"
    if include is not None and not include.fullmatch(path):
        return "not included"
    if exclude.fullmatch(path):
        return "excluded"
    if include is None and generated.fullmatch(path):
        return "generated or vendored"
    if include is None and language_of(path) is None:
        return "of unknown kind"
    if size > largest:
        return f"larger than {largest} bytes"
    return "empty" if size == 0 else None


def _text(content: bytes) -> str | None:
    """Decoded, or None for what is not text. Files of Windows come as UTF-8 with a mark, or as UTF-16."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif b"\0" in content[:8192]:
        return None
    else:
        encoding = "utf-8-sig"
    try:
        return content.decode(encoding).replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
