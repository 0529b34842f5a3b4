"""The workspace of a script, from a real git server: which commit and files are there, and what is said where they are not."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.git_server import GitServer, commit, git, serving
from tests.unit.trainer.data.collect.collecting import secret
from tests.webserver import own_authority
from trainyard.api import API_VERSION
from trainyard.api.exitcodes import ExitCode
from trainyard.api.manifest import parse_run
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect import git as collect_git
from trainyard.trainer.data.prepare import prepare
from trainyard.trainer.errors import UserError
from trainyard.trainer.reporter import Reporter

FILES: dict[str, str | bytes] = {
    "train.py": "print('hello')\n",
    "lib/a.py": "a = 1\n",
    "docs/big.md": "x\n",
    "run.sh": "#!/bin/sh\n",
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect_git, "PAUSES", (0.01, 0.01))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "git") as state:
        yield state


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "git" / "app"
    commit(folder, FILES)
    return folder


def context(place: Path, checkout: dict[str, Any], **spec: Any) -> RunContext:
    manifest = {
        "apiVersion": API_VERSION,
        "kind": "TrainingRun",
        "metadata": {"name": "r"},
        "spec": {
            "image": "my/image",
            "command": ["python", "train.py"],
            "storage": {"workspace": {"git": checkout}},
            **spec,
        },
    }
    for name in ("volumes", "secrets", "work"):
        (place / name).mkdir(exist_ok=True)
    return RunContext(
        run=parse_run(manifest),
        step="prepare",
        attempt=1,
        uid="u",
        work_dir=place / "work" / "r",
        cache_dir=place / "cache",
        volumes_dir=place / "volumes",
        secrets_dir=place / "secrets",
        progress_url=None,
        token_file=place / "token",
    )


def checked_out(place: Path, checkout: dict[str, Any], **spec: Any) -> tuple[Path, Reporter]:
    """The prepare step as a pod does it."""
    reporter = Reporter("prepare", 1)
    run = context(place, checkout, **spec)
    prepare(run, reporter)
    return run.run_dir / "workspace", reporter


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and ".git" not in p.parts}


def test_the_files_of_the_commit_are_there(tmp_path: Path, server: GitServer, repository: Path) -> None:
    (repository / "run.sh").chmod(0o755)
    os.symlink("train.py", repository / "link.py")
    made = commit(repository, {})
    folder, reporter = checked_out(tmp_path, {"url": f"{server.url}/app"})
    assert files(folder) == {*FILES, "link.py"}
    assert os.access(folder / "run.sh", os.X_OK)
    assert (folder / "link.py").is_symlink()
    assert git(folder, "rev-parse", "HEAD") == made
    assert git(folder, "status", "--porcelain") == ""
    assert reporter.final_record("Succeeded").provenance == {"workspace": f"{server.url}/app@{made}"}


def test_branch_tag_and_commit(tmp_path: Path, server: GitServer, repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "v1")
    git(repository, "checkout", "--quiet", "-b", "next")
    second = commit(repository, {"new.py": "x = 1\n"})
    git(repository, "checkout", "--quiet", "main")
    for number, (ref, expected) in enumerate((("v1", first), ("next", second), (first, first))):
        place = tmp_path / str(number)
        place.mkdir()
        folder, _ = checked_out(place, {"url": f"{server.url}/app", "ref": ref})
        assert git(folder, "rev-parse", "HEAD") == expected
        assert ("new.py" in files(folder)) == (expected == second)


def test_later_attempts_have_the_same_commit(tmp_path: Path, server: GitServer, repository: Path) -> None:
    folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app"})
    commit(repository, {"train.py": "changed\n"})
    server.requests.clear()
    (folder / "written-by-the-script").write_text("kept")
    _, reporter = checked_out(tmp_path, {"url": f"{server.url}/app"})
    assert server.requests == []
    assert (folder / "train.py").read_text() == FILES["train.py"]
    assert (folder / "written-by-the-script").exists()
    assert reporter.final_record("Succeeded").provenance


def test_what_broke_off_is_begun_again(
    tmp_path: Path, server: GitServer, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.refuse_with = 503
    with pytest.raises(UserError):
        checked_out(tmp_path, {"url": f"{server.url}/app"})
    assert list((tmp_path / "work" / "r").iterdir()) == []
    server.refuse_with = 0
    folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app"})
    assert files(folder) == set(FILES)


def test_some_folders_alone(tmp_path: Path, server: GitServer, repository: Path) -> None:
    folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app", "sparsePaths": ["lib"]})
    assert files(folder) == {"train.py", "run.sh", "lib/a.py"}, "and the files of the root"


@pytest.mark.parametrize("path", ["nowhere", "lib/a.py"])
def test_a_folder_that_is_not_there(tmp_path: Path, server: GitServer, repository: Path, path: str) -> None:
    words = rf"spec.storage.workspace.git.sparsePaths\[1\] {path}: .*/app has no such folder at HEAD"
    with pytest.raises(UserError, match=words) as caught:
        checked_out(tmp_path, {"url": f"{server.url}/app", "sparsePaths": ["lib", path]})
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG


def test_submodules(tmp_path: Path, server: GitServer, repository: Path) -> None:
    commit(tmp_path / "git" / "shared", {"shared.py": "s = 1\n"})
    git(
        repository,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        str(tmp_path / "git" / "shared"),
        "shared",
    )
    git(repository, "config", "--file", ".gitmodules", "submodule.shared.url", "../shared")
    commit(repository, {})
    without, with_them = tmp_path / "without", tmp_path / "with"
    without.mkdir()
    with_them.mkdir()
    folder, _ = checked_out(without, {"url": f"{server.url}/app"})
    assert "shared/shared.py" not in files(folder)
    folder, _ = checked_out(with_them, {"url": f"{server.url}/app", "submodules": True})
    assert (folder / "shared" / "shared.py").read_text() == "s = 1\n"


def test_a_submodule_that_is_not_there(tmp_path: Path, server: GitServer, repository: Path) -> None:
    commit(tmp_path / "git" / "shared", {"shared.py": "s = 1\n"})
    git(
        repository,
        "-c",
        "protocol.file.allow=always",
        "submodule",
        "--quiet",
        "add",
        str(tmp_path / "git" / "shared"),
        "shared",
    )
    git(repository, "config", "--file", ".gitmodules", "submodule.shared.url", "../gone")
    commit(repository, {})
    with pytest.raises(UserError, match=r"git.submodules") as caught:
        checked_out(tmp_path, {"url": f"{server.url}/app", "submodules": True})
    assert "submodules: false" in caught.value.hint
    assert not (tmp_path / "work" / "r" / "workspace").exists()


def test_no_hook_and_no_filter_runs(tmp_path: Path, server: GitServer, repository: Path) -> None:
    commit(repository, {".gitattributes": "*.py filter=evil\n", ".gitconfig": '[filter "evil"]\n smudge = touch hit\n'})
    folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app"})
    assert (folder / "train.py").read_text() == FILES["train.py"]
    assert not list(tmp_path.rglob("hit"))
    assert not (folder / ".git" / "hooks").exists()


class TestRefusals:
    """Each names the field, the address and what to do; none shows a credential."""

    def test_credentials_reach_git_and_nothing_else(
        self, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(tmp_path / "git", login="reader:s3cr3t-pass") as server:
            login = secret(tmp_path, username="reader", password="s3cr3t-pass")
            folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app", "secretRef": login})
        kept = b"".join(f.read_bytes() for f in (tmp_path / "work").rglob("*") if f.is_file())
        assert files(folder) == set(FILES)
        assert b"s3cr3t-pass" not in kept
        assert "s3cr3t-pass" not in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("values", "hint"), [({}, "give secretRef"), ({"token": "wrong"}, "check the values in secretRef")]
    )
    def test_no_access(self, tmp_path: Path, repository: Path, values: dict[str, str], hint: str) -> None:
        reference = {"secretRef": secret(tmp_path, **values)} if values else {}
        with serving(tmp_path / "git", login="git:t0ken") as server, pytest.raises(UserError) as caught:
            checked_out(tmp_path, {"url": f"{server.url}/app", **reference})
        assert caught.value.message == f"spec.storage.workspace: git.url {server.url}/app: access is refused"
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert hint in caught.value.hint

    def test_no_repository_and_no_ref(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        with pytest.raises(UserError, match=r"there is no such repository"):
            checked_out(tmp_path, {"url": f"{server.url}/other"})
        with pytest.raises(UserError, match=r"there is no ref nowhere") as caught:
            checked_out(tmp_path, {"url": f"{server.url}/app", "ref": "nowhere"})
        assert "check ref" in caught.value.hint

    def test_unknown_host(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"git.url .*: the host is unknown"):
            checked_out(tmp_path, {"url": "http://no-such-host.invalid/app"})

    def test_nobody_listens(self, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(UserError, match=r"gave no answer in 3 tries") as caught:
                checked_out(tmp_path, {"url": f"http://127.0.0.1:{unused.getsockname()[1]}/app"})
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE

    def test_a_certificate(self, tmp_path: Path, repository: Path) -> None:
        tls, pem = own_authority(tmp_path)
        with serving(tmp_path / "git", tls=tls) as server:
            with pytest.raises(UserError, match=r"certificate is not trusted"):
                checked_out(tmp_path, {"url": f"{server.url}/app"})
            login = secret(tmp_path, ca_crt=Path(pem).read_text() if Path(pem).exists() else str(pem))
            folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app", "secretRef": login})
        assert files(folder) == set(FILES)


def test_a_script_with_datasets_has_both(tmp_path: Path, server: GitServer, repository: Path) -> None:
    datasets = [{"name": "d", "inline": {"records": [{"text": "a"}]}}]
    folder, _ = checked_out(tmp_path, {"url": f"{server.url}/app"}, datasets=datasets)
    assert files(folder) == set(FILES)
    record = json.loads((folder.parent / "data" / "train.jsonl").read_text())
    assert record["text"] == "a"
