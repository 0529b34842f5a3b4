"""When an image is built again, and under which name pods find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import images
from cluster.errors import ClusterError

DOCKERFILE = """ARG BASE=python:3.12
FROM ${BASE} AS first
COPY operator/lock.txt ./deps/ /build/
RUN echo COPY this/is/no/instruction
FROM ${BASE}
COPY --from=first /opt /opt
COPY --chown=1000:1000 operator/trainyard \\
     /opt/src
ADD https://example.com/file /file
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "operator/trainyard/api").mkdir(parents=True)
    (tmp_path / "deps").mkdir()
    (tmp_path / "operator/lock.txt").write_text("a==1\n")
    (tmp_path / "operator/trainyard/api/x.py").write_text("x = 1\n")
    (tmp_path / "deps/y").write_text("y")
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def key(context: Path, *, torch: str = "cpu", base: str = "b") -> str:
    return images.image_key(context, context / "Dockerfile", {"TORCH": torch}, base)


def test_sources_are_what_is_copied_from_the_context() -> None:
    assert images.copied_sources(DOCKERFILE) == ["operator/lock.txt", "deps", "operator/trainyard"]


@pytest.mark.parametrize("file", ["operator/lock.txt", "operator/trainyard/api/x.py", "deps/y", "Dockerfile"])
def test_key_changes_with_each_input(context: Path, file: str) -> None:
    before = key(context)
    with (context / file).open("a") as changed:
        changed.write("# more\n")
    assert key(context) != before


def test_key_changes_with_a_renamed_file_the_arguments_and_the_base(context: Path) -> None:
    before = key(context)
    assert key(context, torch="cuda") != before
    assert key(context, base="other") != before
    (context / "deps/y").rename(context / "deps/z")
    assert key(context) != before


def test_key_does_not_change_with_caches_times_or_strangers(context: Path) -> None:
    before = key(context)
    cache = context / "operator/trainyard/__pycache__"
    cache.mkdir()
    (cache / "x.cpython-311.pyc").write_bytes(b"1")
    (context / "README.md").write_text("not copied")
    (context / "deps/y").touch()
    assert key(context) == before


def test_a_missing_source_is_named(context: Path) -> None:
    (context / "operator/lock.txt").unlink()
    with pytest.raises(ClusterError, match=r"COPY operator/lock\.txt: nothing of that name"):
        key(context)


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("mine", "localhost:5001/mine:latest"),
        ("team/mine:1", "localhost:5001/team/mine:1"),
        ("localhost:5001/trainyard/operator:dev", "localhost:5001/trainyard/operator:dev"),
        ("localhost/mine:2", "localhost:5001/mine:2"),
        ("registry.example.com:443/team/mine", "localhost:5001/team/mine:latest"),
    ],
)
def test_names_in_the_registry(reference: str, target: str) -> None:
    assert images.in_registry(reference) == target


def test_digest_is_found_for_the_very_name() -> None:
    listing = "REF TYPE DIGEST SIZE\nlocalhost:5001/a:dev2 t sha256:2 1\nlocalhost:5001/a:dev t sha256:1 1\n"
    assert images.digest_in_list(listing, "localhost:5001/a:dev") == "sha256:1"
    assert images.digest_in_list(listing, "localhost:5001/a") is None


def test_only_images_without_a_tag_are_forgotten() -> None:
    listing = (
        "REF TYPE DIGEST SIZE\n"
        "localhost:5001/a:dev t sha256:new 1\n"
        "localhost:5001/a@sha256:new t sha256:new 1\n"
        "sha256:config-of-new t sha256:new 1\n"
        "localhost:5001/a@sha256:old t sha256:old 1\n"
        "sha256:config-of-old t sha256:old 1\n"
    )
    assert images.untagged_references(listing) == ["localhost:5001/a@sha256:old", "sha256:config-of-old"]


def test_unknown_image_is_refused_with_the_known_names() -> None:
    with pytest.raises(ClusterError, match="no image 'oprator'; there are: operator, trainer"):
        images.chosen(["oprator"])
    assert [image.name for image in images.chosen([])] == ["operator", "trainer"]
