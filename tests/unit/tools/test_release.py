"""What a release is built of, and what it says about itself."""

import re
from pathlib import Path

import pytest

import release
import supply

DIGEST = "sha256:" + "ab" * 32
BASE = f"python:3.12-slim-bookworm@{DIGEST}"
ASKED = {"BASE": BASE, "REGISTRY": "registry.example.org/team/", "SOURCE": "https://git.example.org/trainyard"}
REVISION = "0123456789abcdef0123456789abcdef01234567"


def read(**changes: str) -> release.Release:
    return release.read({**ASKED, **changes}, revision=REVISION, changed="")


@pytest.mark.parametrize(
    "base", ["", "python:3.12-slim-bookworm", f"python@{DIGEST[:-1]}", f"{DIGEST}", "python@sha256:"]
)
def test_a_base_without_a_digest_is_refused(base: str) -> None:
    with pytest.raises(release.Refused, match="is no image with a digest: give name@sha256:"):
        read(BASE=base)


def test_a_work_tree_that_no_commit_describes_is_refused() -> None:
    with pytest.raises(release.Refused, match="differs from the commit 01234567: commit or stash first"):
        release.read(ASKED, revision=REVISION, changed=" M Makefile")


def test_without_a_registry_it_asks_for_one() -> None:
    with pytest.raises(release.Refused, match="REGISTRY is empty"):
        read(REGISTRY="")


def test_the_version_is_the_projects_unless_another_is_given() -> None:
    assert read().image("operator") == f"registry.example.org/team/trainyard/operator:{supply.version()}"
    assert read(VERSION="1.2.3").image("trainer") == "registry.example.org/team/trainyard/trainer:1.2.3"


def test_a_build_gets_everything_that_stands_on_the_image() -> None:
    command = release.build_command("docker", "trainer", read(), bill="sha256:b")
    assert command[:4] == ["docker", "build", "--file", "trainer-image/Dockerfile"]
    assert command[-1] == "."
    given = {command[n + 1] for n, word in enumerate(command) if word == "--build-arg"}
    assert given == {
        f"BASE={BASE}",
        f"VERSION={supply.version()}",
        f"REVISION={REVISION}",
        "SOURCE=https://git.example.org/trainyard",
        "SBOM=sha256:b",
    }


def test_a_bill_that_was_not_made_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supply, "BILLS", supply.ROOT / "build/nowhere")
    with pytest.raises(release.Refused, match="run `make sbom`"):
        release.bill_digest("operator")
    monkeypatch.setattr(supply, "BILLS", tmp_path)
    (tmp_path / "operator.cdx.json").write_bytes(b"{}")
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", release.bill_digest("operator"))


def test_the_notes_name_images_by_digest_with_their_bills() -> None:
    pushed = {name: f"registry.example.org/trainyard/{name}@{DIGEST}" for name in release.DOCKERFILES}
    bills = dict.fromkeys(release.DOCKERFILES, "sha256:b")
    text = release.notes(read(), pushed, bills)
    assert f"Built from commit {REVISION} on {BASE}." in text
    assert f"| `registry.example.org/trainyard/operator@{DIGEST}` | `operator.cdx.json`, sha256:b |" in text
    assert f"--set image.digest={DIGEST} --set trainerImage.digest={DIGEST}" in text


@pytest.mark.parametrize("dockerfile", release.DOCKERFILES.values())
class TestDockerfile:
    def test_the_image_says_where_it_comes_from(self, dockerfile: str) -> None:
        last_stage = (release.ROOT / dockerfile).read_text().rpartition("\nFROM ")[2]
        for label, argument in {
            "version": "VERSION",
            "revision": "REVISION",
            "source": "SOURCE",
            "base.name": "BASE",
        }.items():
            assert f'org.opencontainers.image.{label}="${{{argument}}}"' in last_stage
            assert re.search(rf"^ARG {argument}\b", last_stage, re.M)

    def test_nothing_is_installed_without_a_hash(self, dockerfile: str) -> None:
        text = (release.ROOT / dockerfile).read_text().replace("\\\n", " ")
        installs = [line for line in re.split(r"\n|&&|;;", text) if "pip install" in line]
        assert len(installs) >= 2
        assert all("--require-hashes" in line for line in installs)


def test_what_installs_the_packages_has_a_hash_too() -> None:
    lock = (release.ROOT / "tools/supply/uv.lock").read_text()
    assert re.findall(r"^([a-z]+)==", lock, re.M) == ["uv"]
    assert "--hash=sha256:" in lock
