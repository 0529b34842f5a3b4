"""Links on a claim: within it they are followed, out of it they are refused, with their name and their target."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.data.collect.collecting import context, records
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.data.rows import rows_of
from trainyard.trainer.errors import UserError, invalid_config
from trainyard.trainer.volume import checkpoint
from trainyard.trainer.volume.claims import Bounds, bounds_of, folder_of
from trainyard.trainer.volume.origin import local_folder

ROW = '{"text": "a"}\n'


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    """A claim with a folder `set`, and beside it what a pod sees otherwise."""
    folder = tmp_path / "volumes" / "data"
    (folder / "set").mkdir(parents=True)
    (folder / "set" / "a.jsonl").write_text(ROW)
    (tmp_path / "secrets" / "login").mkdir(parents=True)
    (tmp_path / "secrets" / "login" / "token.jsonl").write_text(ROW)
    return folder


def texts(place: Path, **dataset: Any) -> int:
    run = context(place, **dataset)
    return len(list(rows_of(run.datasets[0], run, place)))


OUT = "out of claim data"


class TestRecords:
    def refused(self, place: Path, link: str, **dataset: Any) -> UserError:
        with pytest.raises(UserError) as caught:
            texts(place, **dataset)
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        told = f": the link {link} leads to {place}/secrets"
        assert told in caught.value.message, caught.value.message
        assert caught.value.message.endswith(OUT)
        assert "put the file itself" in caught.value.hint
        return caught.value

    def test_a_file(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.jsonl").symlink_to(tmp_path / "secrets/login/token.jsonl")
        fault = self.refused(tmp_path, "set/b.jsonl", storageUri="pvc://data/set/b.jsonl")
        assert fault.message.startswith("dataset d: pvc://data/set/b.jsonl: the link")

    def test_a_relative_one(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.jsonl").symlink_to("../../../secrets/login/token.jsonl")
        self.refused(tmp_path, "set/b.jsonl", storageUri="pvc://data/set/b.jsonl")

    def test_a_file_in_a_folder(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.jsonl").symlink_to(tmp_path / "secrets/login/token.jsonl")
        self.refused(tmp_path, "set/b.jsonl", storageUri="pvc://data/set")

    def test_a_file_of_a_pattern(self, tmp_path: Path, claim: Path) -> None:
        (claim / "more").symlink_to(tmp_path / "secrets/login")
        self.refused(tmp_path, "more", storageUri="pvc://data/*/*.jsonl")

    def test_a_folder(self, tmp_path: Path, claim: Path) -> None:
        (claim / "more").symlink_to(tmp_path / "secrets")
        self.refused(tmp_path, "more", storageUri="pvc://data/more/login")

    def test_what_is_not_there_does_not_list_the_neighbours_of_another_place(self, tmp_path: Path, claim: Path) -> None:
        (claim / "more").symlink_to(tmp_path / "secrets/login")
        self.refused(tmp_path, "more", storageUri="pvc://data/more/tokn.jsonl")

    def test_a_link_over_a_link(self, tmp_path: Path, claim: Path) -> None:
        (claim / "hop").symlink_to(tmp_path / "secrets/login")
        (claim / "set" / "b.jsonl").symlink_to(claim / "hop" / "token.jsonl")
        self.refused(tmp_path, "set/b.jsonl", storageUri="pvc://data/set/b.jsonl")

    def test_the_same_claim_by_its_path(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.jsonl").symlink_to(tmp_path / "secrets/login/token.jsonl")
        self.refused(tmp_path, "set/b.jsonl", storageUri=f"file://{claim}/set")

    def test_another_claim(self, tmp_path: Path, claim: Path) -> None:
        other = tmp_path / "volumes" / "data-of-others"
        other.mkdir()
        (other / "c.jsonl").write_text(ROW)
        (claim / "set" / "b.jsonl").symlink_to(other / "c.jsonl")
        with pytest.raises(
            UserError, match=r"the link set/b\.jsonl leads to .*data-of-others/c\.jsonl, out of claim data \("
        ):
            texts(tmp_path, storageUri="pvc://data/set")

    def test_a_path_with_two_slashes_stays_on_the_claim(self, tmp_path: Path, claim: Path) -> None:
        assert texts(tmp_path, storageUri="pvc://data//set//a.jsonl") == 1
        with pytest.raises(UserError, match="does not exist"):
            texts(tmp_path, storageUri=f"pvc://data/{tmp_path}/secrets/login/token.jsonl")

    def test_links_within_the_claim_are_followed(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.jsonl").symlink_to("a.jsonl")
        (claim / "current").symlink_to("set")
        assert texts(tmp_path, storageUri="pvc://data/current") == 2

    def test_a_claim_that_is_a_link_itself_as_local_runs_have_it(self, tmp_path: Path, claim: Path) -> None:
        elsewhere = tmp_path / "home"
        claim.rename(elsewhere)
        claim.symlink_to(elsewhere)
        assert texts(tmp_path, storageUri="pvc://data/set") == 1
        (elsewhere / "set" / "b.jsonl").symlink_to(tmp_path / "secrets/login/token.jsonl")
        self.refused(tmp_path, "set/b.jsonl", storageUri="pvc://data/set")

    def test_links_in_circles_end(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.jsonl").symlink_to("c.jsonl")
        (claim / "set" / "c.jsonl").symlink_to("b.jsonl")
        assert texts(tmp_path, storageUri="pvc://data/set") == 1
        with pytest.raises(UserError, match="does not exist"):
            texts(tmp_path, storageUri="pvc://data/set/b.jsonl")

    def test_a_manifest_and_the_files_it_names(self, tmp_path: Path, claim: Path) -> None:
        content = ROW.encode()
        entry = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (claim / "set" / "manifest.json").write_text(json.dumps({"version": 1, "files": {"b.jsonl": entry}}))
        (claim / "set" / "b.jsonl").symlink_to(tmp_path / "secrets/login/token.jsonl")
        self.refused(tmp_path, "set/b.jsonl", manifest={"storageUri": "pvc://data/set/manifest.json"})
        (claim / "m.json").symlink_to(tmp_path / "secrets/login/m.json")
        self.refused(tmp_path, "m.json", manifest={"storageUri": "pvc://data/m.json"})

    def test_code_and_runbooks_neither_follow_nor_begin_outside(self, tmp_path: Path, claim: Path) -> None:
        (claim / "set" / "b.py").symlink_to(tmp_path / "secrets/login/token.jsonl")
        (claim / "set" / "c.py").write_text("x = 1\n")
        assert [r["path"] for r in records(tmp_path, code={"storageUri": "pvc://data/set"})] == ["c.py"]
        (claim / "set" / "more").symlink_to(tmp_path / "secrets/login")
        for source in (
            {"code": {"storageUri": "pvc://data/set", "path": "more"}},
            {"runbook": {"storageUri": "pvc://data/set/more"}},
        ):
            self.refused(tmp_path, "set/more", **source)

    def test_code_of_a_folder_above_is_refused(self, tmp_path: Path, claim: Path) -> None:
        with pytest.raises(UserError, match=r"code\.storageUri pvc://data/set contains \.\."):
            texts(tmp_path, code={"storageUri": "pvc://data/set", "path": "../../../secrets"})


class TestModels:
    def test_a_model_folder_and_what_lies_in_it(self, tmp_path: Path, claim: Path) -> None:
        run = context(tmp_path, inline={"text": "x"})
        (claim / "base").mkdir()
        (claim / "base" / "config.json").write_text("{}")
        assert local_folder("pvc://data/base", context=run, secret_ref=None, weights=True) == claim / "base"
        (claim / "base" / "tokenizer.json").symlink_to(tmp_path / "secrets/login/token.jsonl")
        for weights in (True, False):
            with pytest.raises(UserError, match=r"^pvc://data/base: the link base/tokenizer\.json leads to ") as caught:
                local_folder("pvc://data/base", context=run, secret_ref=None, weights=weights)
            assert caught.value.exit_code == ExitCode.INVALID_CONFIG

    def test_a_snapshot_of_a_hub_on_a_claim(self, tmp_path: Path, claim: Path) -> None:
        snapshot = claim / "models--org--name" / "snapshots" / "abc"
        blobs = snapshot.parents[1] / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        (blobs / "1").write_text("{}")
        (snapshot / "config.json").symlink_to("../../blobs/1")
        run = context(tmp_path, inline={"text": "x"})
        assert local_folder("pvc://data/models--org--name/snapshots/abc", context=run, secret_ref=None, weights=True)


class TestCheckpoints:
    def test_of_another_run_that_leads_away(self, tmp_path: Path) -> None:
        volume, outside = tmp_path / "checkpoints", tmp_path / "outside"
        for root in (volume / "other-00000001" / "checkpoints", outside / "checkpoints"):
            checkpoint.save(root, 5, lambda folder: (folder / "weights").write_text("w") and None)
        own = volume / "own-00000002"
        assert checkpoint.find_other("other", volume=volume, own=own).step == 5
        (volume / "away-00000003").symlink_to(outside)
        leftover = outside / "checkpoints" / ".tmp-x"
        leftover.mkdir()
        step = "checkpoints/step-00000005"
        for reference in ("away", "away-00000003", f"away-00000003/{step}"):
            with pytest.raises(
                UserError, match=r"the link away-00000003 leads to .*, out of the checkpoint volume"
            ) as caught:
                checkpoint.find_other(reference, volume=volume, own=own)
            assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert leftover.exists(), "nothing is tidied up in another place"
        weights = volume / "other-00000001" / step / "weights"
        weights.unlink()
        weights.symlink_to(outside / step / "weights")
        for reference in ("other", f"other-00000001/{step}"):
            with pytest.raises(UserError, match=rf"the link other-00000001/{step}/weights leads to "):
                checkpoint.find_other(reference, volume=volume, own=own)


def test_in_the_image_links_lead_where_they_lead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) == "/")
    assert bounds_of(f"file://{tmp_path}/link", tmp_path / "volumes") is None
    assert folder_of(f"file://{tmp_path}/link", tmp_path / "volumes", told="x", invalid=invalid_config)


def test_any_other_mounted_volume_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnt").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "mnt" / "link").symlink_to(tmp_path / "real")
    monkeypatch.setattr("os.path.ismount", lambda path: str(path) in ("/", str(tmp_path / "mnt")))
    with pytest.raises(UserError, match=rf"^x: the link link leads to .*/real, out of the volume at {tmp_path}/mnt \("):
        folder_of(f"file://{tmp_path}/mnt/link", tmp_path / "volumes", told="x", invalid=invalid_config)


def test_many_files_are_checked_without_resolving_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    files = [tmp_path / "a" / f"{n}.txt" for n in range(1000)]
    (tmp_path / "a").mkdir()
    for file in files:
        file.touch()
    calls: list[Any] = []
    real = os.path.realpath
    monkeypatch.setattr("os.path.realpath", lambda path: calls.append(path) or real(path))
    Bounds(tmp_path, "here").check(files, told="x", invalid=invalid_config)
    assert len(calls) <= 3
