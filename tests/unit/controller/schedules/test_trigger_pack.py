"""git packs, read as they come: those that git makes, and those that somebody made to do harm."""

import hashlib
import random
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.controller.schedules.git_server import commit, git
from trainyard.controller.schedules.triggers.pack import Broken, Limits, Object, PackReader, TooLarge, patched

COMMIT, TREE, BLOB, OFFSET_DELTA, ID_DELTA = 1, 2, 3, 6, 7


def entry(kind: int, content: bytes, *, base: bytes = b"", size: int | None = None) -> bytes:
    """An object of a pack."""
    left = len(content) if size is None else size
    head, left = kind << 4 | left & 15, left >> 4
    out = bytearray()
    while left:
        out.append(head | 128)
        head, left = left & 127, left >> 7
    out.append(head)
    return bytes(out) + base + zlib.compress(content)


def pack(*entries: bytes, count: int | None = None) -> bytes:
    body = b"PACK" + (2).to_bytes(4, "big") + (len(entries) if count is None else count).to_bytes(4, "big")
    body += b"".join(entries)
    return body + hashlib.sha1(body).digest()


def read(data: bytes, *, piece: int = 2**16, limits: Limits | None = None) -> dict[bytes, Object]:
    reader = PackReader(limits or Limits())
    for at in range(0, len(data), piece):
        reader.feed(data[at : at + piece])
    return reader.finish()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large folders that are nearly alike, so that git makes deltas of folders and of files."""
    root = tmp_path_factory.mktemp("pack")
    git(root, "init", "--quiet", "-b", "main", "repo")
    random.seed(1)
    text = "\n".join(str(random.random()) for _ in range(2000))
    files = {f"{folder}/file{n:03}": f"{n}" for folder in "abcdefgh" for n in range(200)}
    files |= {f"{folder}/only-{folder}": text + folder for folder in "abcdefgh"}
    commit(root / "repo", files)
    return root / "repo"


@pytest.mark.parametrize("deltas", ["--delta-base-offset", "--no-delta-base-offset"])
@pytest.mark.parametrize("piece", [1, 7, 4096, 2**20])
def test_commits_and_folders_of_a_pack_that_git_made(repository: Path, deltas: str, piece: int) -> None:
    options = ["--delta-base-offset"] if deltas == "--delta-base-offset" else []
    ids = git(repository, "rev-list", "--objects", "--all")
    made = subprocess.run(
        ["git", "pack-objects", "--stdout", "--no-reuse-delta", *options],
        cwd=repository,
        input="\n".join(line.split()[0] for line in ids.splitlines()).encode(),
        capture_output=True,
        check=True,
    ).stdout
    check = repository / f"{deltas}-{piece}.pack"
    check.write_bytes(made)
    kinds = subprocess.run(["git", "index-pack", str(check)], cwd=repository, capture_output=True, check=True)
    listed = git(repository, "verify-pack", "-v", str(check.with_suffix(".idx")))
    assert kinds.returncode == 0
    trees = [line.split() for line in listed.splitlines() if " tree " in line or " commit " in line]
    assert any(len(words) > 5 for words in trees), "there is a folder that is a delta"
    found = read(made, piece=piece)
    assert {key.decode() for key in found} == {words[0] for words in trees}
    for words in trees:
        assert found[words[0].encode()].kind == words[1].encode()


def test_a_file_that_is_large_when_unpacked_costs_no_memory(repository: Path) -> None:
    zeros = entry(BLOB, bytes(50 * 2**20))
    made = pack(zeros, entry(TREE, b""))
    assert list(read(made).values()) == [Object(b"tree", b"")]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (pack(entry(BLOB, bytes(3000))), "when it is unpacked"),
        (pack(entry(TREE, bytes(3000))), "when it is unpacked"),
        (pack(entry(BLOB, b"", size=2**50)), "when it is unpacked"),
        (pack(*[entry(BLOB, bytes(300))] * 4), "when it is unpacked"),
        (pack(count=11), "11 objects"),
    ],
)
def test_what_a_pack_unpacks_to_is_limited_before_it_is_unpacked(made: bytes, words: str) -> None:
    with pytest.raises(TooLarge, match=words):
        read(made, limits=Limits(objects=10, inflated=1000))


def test_what_deltas_make_is_limited_before_it_is_made() -> None:
    base = bytes(1000)
    key = hashlib.sha1(b"tree 1000\0" + base).digest()
    copies = b"\xe8\x07" + b"\xff\x7f" + b"\xb0\xe8\x03" * 100  # 100 times the whole base
    with pytest.raises(TooLarge, match="when it is unpacked"):
        read(pack(entry(TREE, base), entry(ID_DELTA, copies, base=key)), limits=Limits(inflated=5000))


@pytest.mark.parametrize(
    "made",
    [
        b"HTTP/1.1 200 OK whatever",
        pack(entry(TREE, b"abc", size=2)),
        pack(entry(TREE, b"abc", size=4)),
        pack(entry(5, b"abc")),
        pack(entry(TREE, b"abc"))[:-25],
        pack(b"\xa3" + b"\xff" * 30),
        pack(entry(TREE, b"abc"), b"\x63\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
        pack(b"\x23not compressed at all"),
        b"",
    ],
)
def test_what_is_no_pack_is_said_to_be_none(made: bytes) -> None:
    with pytest.raises(Broken):
        read(made)


@given(st.binary(max_size=40), st.binary(max_size=60))
def test_a_delta_makes_what_it_says_or_nothing(base: bytes, delta: bytes) -> None:
    asked: list[int] = []
    try:
        made = patched(base, delta, room=asked.append)
    except Broken:
        return
    assert [len(made)] == asked


@given(st.binary(max_size=300))
def test_any_bytes_behind_the_head_of_a_pack_are_read_or_refused(rest: bytes) -> None:
    try:
        read(b"PACK\0\0\0\2\0\0\0\3" + rest)
    except (Broken, TooLarge):
        return
