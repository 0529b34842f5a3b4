"""Build, push and note the images of a release.

What is released can be traced back: the base image is named by its digest, the commit, the version and the bill of materials
stand on the image as labels, and the notes name each image by the digest under which it was pushed. So nothing is built from
a tag of a base image, which means something else tomorrow, nor from a work tree that no commit describes.
"""

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import supply

ROOT = Path(__file__).resolve().parents[1]
NOTES = ROOT / "build/release-notes.md"
DIGEST = re.compile(r"^\S+@sha256:[0-9a-f]{64}$")
DOCKERFILES = {"operator": "operator/Dockerfile", "trainer": "trainer-image/Dockerfile"}


class Refused(RuntimeError):
    """Nothing was built; the message says why and what to do."""


@dataclass(frozen=True)
class Release:
    """Where images go and what stands on them."""

    registry: str
    base: str
    version: str
    revision: str
    source: str

    def image(self, name: str) -> str:
        return f"{self.registry}/trainyard/{name}:{self.version}"


def read(environment: dict[str, str], *, revision: str, changed: str) -> Release:
    """The release that was asked for. Raises `Refused`."""
    base, registry = environment.get("BASE", ""), environment.get("REGISTRY", "").rstrip("/")
    if not DIGEST.match(base):
        raise Refused(
            f"BASE={base!r} is no image with a digest: give name@sha256:..., for example what "
            "`docker buildx imagetools inspect python:3.12-slim-bookworm` prints; a tag means another image tomorrow"
        )
    if not registry:
        raise Refused("REGISTRY is empty: say where the images are pushed to, for example registry.example.org/team")
    if changed:
        raise Refused(f"the work tree differs from the commit {revision[:8]}: commit or stash first\n{changed}")
    version = environment.get("VERSION") or supply.version()
    return Release(registry, base, version, revision, environment.get("SOURCE", ""))


def build_command(engine: str, name: str, release: Release, *, bill: str) -> list[str]:
    """From the repository's root. `bill` is the digest of the bill of materials."""
    arguments = {
        "BASE": release.base,
        "VERSION": release.version,
        "REVISION": release.revision,
        "SOURCE": release.source,
        "SBOM": bill,
    }
    words = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
    return [engine, "build", "--file", DOCKERFILES[name], *words, "--tag", release.image(name), "."]


def bill_digest(name: str) -> str:
    """Of what `make sbom` has written. Raises `Refused`."""
    path = supply.BILLS / f"{name}.cdx.json"
    if not path.exists():
        raise Refused(f"{path.relative_to(ROOT)} is not there: run `make sbom`")
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def notes(release: Release, pushed: dict[str, str], bills: dict[str, str]) -> str:
    """What belongs into the release notes. `pushed` has each image's name with its digest."""
    lines = [f"## Images of {release.version}", "", f"Built from commit {release.revision} on {release.base}.", ""]
    lines += ["| image | bill of materials |", "|---|---|"]
    lines += [f"| `{reference}` | `{name}.cdx.json`, {bills[name]} |" for name, reference in pushed.items()]
    values = [f"--set image.digest={pushed['operator'].partition('@')[2]}"]
    values += [f"--set trainerImage.digest={pushed['trainer'].partition('@')[2]}"]
    return "\n".join([*lines, "", f"Install exactly these: `{' '.join(values)}`.", ""])


def main() -> None:
    """Build and push all images; write the notes. Raises `Refused`."""
    engine = os.environ.get("ENGINE", "docker")
    git = {"revision": _run("git", "rev-parse", "HEAD"), "changed": _run("git", "status", "--porcelain")}
    release = read(dict(os.environ), **git)
    bills = {name: bill_digest(name) for name in DOCKERFILES}
    pushed = {}
    for name in DOCKERFILES:
        _run(*build_command(engine, name, release, bill=bills[name]))
        _run(engine, "push", release.image(name))
        pushed[name] = _run(engine, "image", "inspect", "--format", "{{index .RepoDigests 0}}", release.image(name))
    NOTES.write_text(notes(release, pushed, bills))
    print(
        f"{NOTES.relative_to(ROOT)} belongs into the release notes, with the files of {supply.BILLS.relative_to(ROOT)}"
    )


def _run(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Refused(f"{' '.join(command)} failed; the output above says why")
    return done.stdout.strip()


if __name__ == "__main__":
    try:
        main()
    except Refused as refused:
        sys.exit(f"release: {refused}")
