"""What the images are made of: a bill of materials from the locks, and the known vulnerabilities of what the locks name.

Both go by the lock files, because an image holds exactly the Python packages that its lock names. What the base image brings
along is not in them: it has a digest, and a bill of its own. The tools stand in a lock too (tools/supply/checks.lock) and are
kept apart from the development environment.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / ".cluster/supply/bin"
BILLS = ROOT / "build/sbom"
LOCKS = {
    "operator": "operator/requirements.lock",
    "trainer": "trainer-image/requirements.lock",
    "trainer-cpu": "trainer-image/requirements-cpu.lock",
    "trainer-converter": "trainer-image/requirements-converter.lock",
    "trainer-harness": "trainer-image/requirements-harness.lock",
}
"""Of each image; the last two are folders of their own in both trainer images."""

FOUND, NOT_CHECKED = 1, 3
"""Exit codes of the audit: something was found; nobody knows."""

Bill = dict[str, Any]


def version() -> str:
    """The project's own."""
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def bill_command(lock: str) -> list[str]:
    """Lists what a lock names, with hashes, without asking anybody, and the same at each run."""
    fixed = ["--output-reproducible", "--of", "JSON", "--sv", "1.6", "-o", "-"]
    return [str(TOOLS / "cyclonedx-py"), "requirements", lock, *fixed]


def licences_command(environment: str) -> list[str]:
    """Lists what is installed, with what the packages say of themselves."""
    fixed = ["--output-reproducible", "--of", "JSON", "--sv", "1.6", "-o", "-"]
    return [str(TOOLS / "cyclonedx-py"), "environment", environment, *fixed]


def audit_command(lock: str, report: Path) -> list[str]:
    """Asks for each package of a lock; nothing is installed or resolved."""
    words = ["--requirement", lock, "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    return [str(TOOLS / "pip-audit"), *words, "--format", "json", "--output", str(report)]


def completed(bill: Bill, *, image: str, licences: Mapping[str, Any]) -> Bill:
    """The bill of an image: what it is of, and the licence of each package that is installed here in the same version."""
    components = [
        {**component, **({"licenses": licences[component["purl"]]} if component["purl"] in licences else {})}
        for component in bill["components"]
    ]
    subject = {"type": "container", "bom-ref": image, "name": f"trainyard/{image}", "version": version()}
    return {**bill, "metadata": {**bill["metadata"], "component": subject}, "components": components}


def sbom() -> int:
    """Write `build/sbom/IMAGE.cdx.json` of each image."""
    installed = json.loads(_output(licences_command(".venv")))
    licences = {c["purl"]: c["licenses"] for c in installed["components"] if "purl" in c and "licenses" in c}
    BILLS.mkdir(parents=True, exist_ok=True)
    for image, lock in LOCKS.items():
        bill = completed(json.loads(_output(bill_command(lock))), image=image, licences=licences)
        path = BILLS / f"{image}.cdx.json"
        path.write_text(json.dumps(bill, indent=1, sort_keys=True) + "\n")
        known = sum("licenses" in component for component in bill["components"])
        print(f"{path.relative_to(ROOT)}: {len(bill['components'])} packages, {known} with their licence")
    return 0


def audit() -> int:
    """Look up every locked package. 0: nothing is known against it; 1: something is; 3: the answer could not be had."""
    code = 0
    BILLS.mkdir(parents=True, exist_ok=True)
    for image, lock in LOCKS.items():
        report = BILLS / f"{image}.audit.json"
        report.unlink(missing_ok=True)
        done = subprocess.run(audit_command(lock, report), cwd=ROOT, capture_output=True, text=True)
        if not report.exists():
            last = (done.stderr.strip().splitlines() or ["no word about why"])[-1]
            print(f"{image}: NOT CHECKED, the vulnerability service gave no answer: {last}", file=sys.stderr)
            code = code or NOT_CHECKED
            continue
        answer = json.loads(report.read_text())
        found, skipped = findings(answer), passed_over(answer)
        for line in found:
            print(f"{image}: {line}")
        print(f"{image}: {len(found)} known vulnerabilities in the packages of {lock}")
        if skipped:
            print(f"{image}: NOT CHECKED, {len(skipped)} of {len(answer['dependencies'])} packages:", file=sys.stderr)
            for line in skipped:
                print(f"{image}: {line}", file=sys.stderr)
        code = FOUND if found else code or (NOT_CHECKED if skipped else 0)
    return code


def findings(report: Mapping[str, Any]) -> list[str]:
    """A line for each known vulnerability, with the version that is free of it."""
    lines = []
    for package in report["dependencies"]:
        for known in package.get("vulns", ()):
            way_out = (
                f"raise it to {' or '.join(known['fix_versions'])}" if known["fix_versions"] else "no version is free"
            )
            lines.append(f"{package['name']} {package['version']}: {known['id']}: {way_out}")
    return lines


def passed_over(report: Mapping[str, Any]) -> list[str]:
    """A line for each package that the service knows nothing of; of such a one nobody has said that it is free."""
    return [f"{p['name']}: not looked up: {p['skip_reason']}" for p in report["dependencies"] if "skip_reason" in p]


def _output(command: list[str]) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    actions = {"sbom": sbom, "audit": audit}
    if sys.argv[1:] not in [[name] for name in actions]:
        sys.exit(f"usage: supply.py {'|'.join(actions)}")
    sys.exit(actions[sys.argv[1]]())
