"""Committed folders: whole or absent, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trainyard.trainer.volume.commit import (
    Committed,
    commit_folder,
    discard,
    find_damage,
    read_committed,
    remove_leftovers,
)


def make(path: Path, text: str = "weights") -> Committed:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "a.bin").write_text(text)
        (folder / "deep" / "b.bin").write_text(text * 2)

    return commit_folder(path, write, step=7)


def test_a_committed_folder_knows_its_files(tmp_path: Path) -> None:
    committed = make(tmp_path / "model")
    again = read_committed(tmp_path / "model")
    assert again is not None
    assert again.manifest == committed.manifest
    assert set(again.manifest["files"]) == {"a.bin", "deep/b.bin"}
    assert again.manifest["step"] == 7
    assert again.bytes == len("weights") * 3
    assert find_damage(again) is None


def test_what_the_writer_returns_stands_in_the_manifest(tmp_path: Path) -> None:
    committed = commit_folder(tmp_path / "data", lambda folder: {"records": 3}, key="k")
    assert committed.manifest["records"] == 3
    assert committed.manifest["key"] == "k"


def test_files_can_be_read_by_other_users(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        (folder / "private").write_text("x")
        (folder / "private").chmod(0o600)

    commit_folder(tmp_path / "model", write)
    assert (tmp_path / "model" / "private").stat().st_mode & 0o777 == 0o644


def test_a_failing_writer_leaves_what_was_there(tmp_path: Path) -> None:
    make(tmp_path / "model", "old")

    def fail(folder: Path) -> None:
        (folder / "a.bin").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        commit_folder(tmp_path / "model", fail)
    assert (tmp_path / "model" / "a.bin").read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "a.bin").unlink(), "a.bin is missing"),
        (lambda f: (f / "a.bin").write_text("short"), "a.bin has 5 bytes instead of 7"),
        (lambda f: (f / "a.bin").write_text("wEights"), "a.bin has been changed (its SHA-256 differs)"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage, message: str) -> None:  # type: ignore[no-untyped-def]
    committed = make(tmp_path / "model")
    damage(tmp_path / "model")
    assert find_damage(committed) == message


def test_sizes_alone_find_a_torn_write_but_not_a_flipped_bit(tmp_path: Path) -> None:
    committed = make(tmp_path / "model")
    (tmp_path / "model" / "a.bin").write_text("wEights")
    assert find_damage(committed, hashes=False) is None
    (tmp_path / "model" / "a.bin").write_text("")
    assert find_damage(committed, hashes=False) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"version": 1}'])
def test_a_torn_manifest_is_no_manifest(tmp_path: Path, text: str) -> None:
    make(tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_text(text)
    assert read_committed(tmp_path / "model") is None


def test_discarding_and_leftovers(tmp_path: Path) -> None:
    make(tmp_path / "old")
    discard(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".tmp-step-00000003").mkdir()
    make(tmp_path / "kept")
    assert remove_leftovers(tmp_path) == 1
    assert [f.name for f in tmp_path.iterdir()] == ["kept"]


def test_killed_at_any_moment_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    """A process rewrites a folder in an endless loop and is killed twenty times; a reader never sees a mixture."""
    program = (
        "import sys, itertools\n"
        "from pathlib import Path\n"
        "from trainyard.trainer.volume.commit import commit_folder\n"
        "for n in itertools.count():\n"
        "    def write(folder, n=n):\n"
        "        for i in range(4):\n"
        "            (folder / f'f{i}').write_text(str(n) * 2000)\n"
        "    commit_folder(Path(sys.argv[1]) / f'step-{n % 2}', write, n=n)\n"
        "    print(n, flush=True)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for kill in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        for _ in range(1 + kill % 7):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        for folder in tmp_path.glob("step-*"):
            committed = read_committed(folder)
            assert committed is not None
            assert find_damage(committed) is None
            assert (folder / "f3").read_text() == str(committed.manifest["n"]) * 2000
    assert json.loads((tmp_path / "step-0" / "manifest.json").read_text())["version"] == 1
