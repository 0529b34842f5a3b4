"""The bill of materials and the look-up of vulnerabilities: what is asked, and what is made of the answer."""

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

import supply

BILL: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "metadata": {"tools": {}},
    "components": [
        {"name": "aiohttp", "version": "3", "purl": "pkg:pypi/aiohttp@3"},
        {"name": "kopf", "version": "1", "purl": "pkg:pypi/kopf@1"},
    ],
}
LICENCES = {"pkg:pypi/aiohttp@3": [{"expression": "Apache-2.0"}], "pkg:pypi/kopf@2": [{"expression": "MIT"}]}
CLEAN = {"dependencies": [{"name": "kopf", "version": "1", "vulns": []}]}
VULNERABLE = {
    "dependencies": [
        {"name": "kopf", "version": "1", "vulns": []},
        {
            "name": "aiohttp",
            "version": "3",
            "vulns": [
                {"id": "GHSA-1", "fix_versions": ["4", "5"], "description": "..."},
                {"id": "GHSA-2", "fix_versions": [], "description": "..."},
            ],
        },
    ]
}


def test_every_lock_of_an_image_is_there_and_has_hashes() -> None:
    for lock in supply.LOCKS.values():
        text = (supply.ROOT / lock).read_text()
        named = re.findall(r"^[a-z0-9][a-z0-9._-]*==", text, re.M | re.I)
        assert named
        assert text.count("--hash=sha256:") >= len(named)


def test_every_lock_that_a_dockerfile_installs_is_listed_and_checked() -> None:
    installed = set()
    for dockerfile in ("operator/Dockerfile", "trainer-image/Dockerfile"):
        for line in (supply.ROOT / dockerfile).read_text().splitlines():
            if line.startswith("COPY "):
                installed |= {word for word in line.split() if word.endswith(".lock")}
    assert installed - {"tools/supply/uv.lock"} == set(supply.LOCKS.values())


def test_the_bill_says_what_it_is_of_and_gives_licences_of_the_same_version_only() -> None:
    bill = supply.completed(BILL, image="operator", licences=LICENCES)
    assert bill["metadata"]["component"]["name"] == "trainyard/operator"
    assert bill["metadata"]["component"]["version"] == supply.version()
    aiohttp, kopf = bill["components"]
    assert aiohttp["licenses"] == [{"expression": "Apache-2.0"}]
    assert "licenses" not in kopf
    assert "licenses" not in BILL["components"][0]


def test_a_bill_is_the_same_at_each_run_and_asks_nobody() -> None:
    command = supply.bill_command("operator/requirements.lock")
    assert command[1:3] == ["requirements", "operator/requirements.lock"]
    assert "--output-reproducible" in command


def test_the_audit_takes_the_lock_as_it_is() -> None:
    """Nothing is resolved or installed for it: that would be another set of packages than the image's."""
    command = supply.audit_command("a.lock", Path("/tmp/report.json"))
    assert command[0].endswith("pip-audit")
    assert {"--require-hashes", "--disable-pip"} <= set(command)
    assert command[command.index("--requirement") + 1] == "a.lock"
    assert command[command.index("--output") + 1] == "/tmp/report.json"


def test_a_finding_names_the_package_and_the_way_out() -> None:
    assert supply.findings(VULNERABLE) == [
        "aiohttp 3: GHSA-1: raise it to 4 or 5",
        "aiohttp 3: GHSA-2: no version is free",
    ]
    assert supply.findings(CLEAN) == []


@pytest.fixture
def auditor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pip-audit that answers with a report, or with none, as the real one does when the service is away."""

    def make(report: object | None) -> None:
        program = tmp_path / "pip-audit"
        body = "echo 'ERROR: could not connect' >&2; exit 1"
        if report is not None:
            (tmp_path / "report").write_text(json.dumps(report))
            # As pip-audit: 1 where something was found.
            body = f'cp {tmp_path}/report "${{@: -1}}"; grep -q GHSA {tmp_path}/report && exit 1; exit 0'
        program.write_text(f"#!/bin/bash\n{body}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(supply, "TOOLS", tmp_path)
        monkeypatch.setattr(supply, "BILLS", tmp_path / "bills")

    return make


def test_nothing_found_is_success(auditor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    auditor(CLEAN)
    assert supply.audit() == 0
    assert "operator: 0 known vulnerabilities in the packages of operator/requirements.lock" in capsys.readouterr().out


def test_a_finding_is_failure(auditor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    auditor(VULNERABLE)
    assert supply.audit() == supply.FOUND
    assert "trainer: aiohttp 3: GHSA-1: raise it to 4 or 5" in capsys.readouterr().out


def test_no_answer_is_not_taken_for_nothing_found(auditor: Any, capsys: pytest.CaptureFixture[str]) -> None:
    auditor(None)
    assert supply.audit() == supply.NOT_CHECKED
    told = capsys.readouterr()
    assert "operator: NOT CHECKED, the vulnerability service gave no answer: ERROR: could not connect" in told.err
    assert "0 known" not in told.out


def test_a_package_that_was_passed_over_is_neither_vulnerable_nor_free(
    auditor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"name": "own", "skip_reason": "not on the index"}
    auditor({"dependencies": [*CLEAN["dependencies"], unknown]})
    assert supply.audit() == supply.NOT_CHECKED
    told = capsys.readouterr()
    assert "operator: 0 known vulnerabilities" in told.out
    assert "operator: NOT CHECKED, 1 of 2 packages:\noperator: own: not looked up: not on the index" in told.err
    auditor({"dependencies": [*VULNERABLE["dependencies"], unknown]})
    assert supply.audit() == supply.FOUND


def test_an_old_report_is_not_taken_for_an_answer(auditor: Any) -> None:
    auditor(CLEAN)
    assert supply.audit() == 0
    auditor(None)
    assert supply.audit() == supply.NOT_CHECKED
