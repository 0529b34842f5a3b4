"""Code from a real git server (git's own http-backend) and from folders: what is taken, what is left out, what is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.servers.git_server import GitServer, commit, git, serving
from tests.unit.trainer.data.collect.collecting import begin_anew, context, records, secret
from tests.webserver import Asked, Reply, own_authority, web
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.data.collect import git as collect_git
from trainyard.trainer.data.collect.run import collected
from trainyard.trainer.errors import UserError

FILES: dict[str, str | bytes] = {
    "src/Notify/Program.cs": "class Program { }\r\n",
    "src/Notify/obj/Generated.cs": "class Generated { }\n",
    "deploy/values.yaml": "replicas: 2\n",
    "deploy/chart.tpl": "{{ .Values.replicas }}\n",
    "config/app.json": '{"Logging": "Debug"}\n',
    "tool.py": "print('hello')\n",
    "Makefile": "all:\n",
    "picture.png": b"\x89PNG\0",
    "fake.cs": b"MZ\0\0binary",
    "utf16.cs": "class Wide { }".encode("utf-16"),
    "latin.cs": b"// caf\xe9\n",
    "package-lock.json": "{}\n",
    "node_modules/a/index.js": "x\n",
    ".env": "DB_PASSWORD=hunter2\n",
    "certs/server.pem": "-----BEGIN CERTIFICATE-----\n",
    "big.json": "[" + "1," * 200_000 + "1]",
    "empty.py": "",
}
TAKEN = [
    "Makefile",
    "config/app.json",
    "deploy/chart.tpl",
    "deploy/values.yaml",
    "src/Notify/Program.cs",
    "tool.py",
    "utf16.cs",
]


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


def paths(found: list[dict[str, Any]]) -> list[str]:
    return [record["path"] for record in found]


class TestFromGit:
    def test_text_of_known_languages_is_taken(
        self, tmp_path: Path, server: GitServer, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = records(tmp_path, code={"url": f"{server.url}/app"})
        assert paths(found) == TAKEN
        program = next(r for r in found if r["path"].endswith("Program.cs"))
        assert program == {
            "kind": "code",
            "path": "src/Notify/Program.cs",
            "language": "csharp",
            "text": "class Program { }\n",
            "repository": f"{server.url}/app",
            "commit": git(repository, "rev-parse", "HEAD"),
        }
        assert next(r for r in found if r["path"] == "utf16.cs")["text"] == "class Wide { }"
        said = capsys.readouterr().out
        assert (
            "7 files taken; left out: 1 empty, 3 generated or vendored, 1 larger than 262144 bytes, 2 not text" in said
        )
        assert "1 of unknown kind, 2 with credentials by their name" in said

    def test_patterns_and_a_folder(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        found = records(tmp_path, code={"url": f"{server.url}/app", "include": ["**/*.cs"], "exclude": ["**/obj/**"]})
        assert paths(found) == ["src/Notify/Program.cs", "utf16.cs"]
        begin_anew(tmp_path)
        assert paths(records(tmp_path, code={"url": f"{server.url}/app", "path": "deploy"})) == [
            "chart.tpl",
            "values.yaml",
        ]

    def test_branch_tag_and_commit(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        first = git(repository, "rev-parse", "HEAD")
        git(repository, "tag", "v1")
        git(repository, "checkout", "--quiet", "-b", "next")
        second = commit(repository, {"new.py": "x = 1\n"})
        git(repository, "checkout", "--quiet", "main")
        for ref, expected in (("v1", first), ("next", second), (first, first), (None, first)):
            begin_anew(tmp_path)
            found = records(tmp_path, code={"url": f"{server.url}/app"} | ({"ref": ref} if ref else {}))
            assert {r["commit"] for r in found} == {expected}
            assert ("new.py" in paths(found)) == (expected == second)

    def test_what_was_fetched_is_not_fetched_again(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        before = records(tmp_path, code={"url": f"{server.url}/app"})
        commit(repository, {"tool.py": "changed = True\n"})
        server.requests.clear()
        assert records(tmp_path, code={"url": f"{server.url}/app"}) == before
        assert server.requests == []

    def test_links_and_submodules_lead_nowhere(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        (tmp_path / "outside.py").write_text("secret\n")
        os.symlink(tmp_path / "outside.py", repository / "link.py")
        commit(repository, {})
        assert "link.py" not in paths(records(tmp_path, code={"url": f"{server.url}/app"}))

    def test_too_much(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        with pytest.raises(UserError, match=r"9 files of 143 bytes together are more than code.maxTotalBytes \(50\)"):
            records(tmp_path, code={"url": f"{server.url}/app", "maxTotalBytes": 50})


class TestRefusals:
    """Each names the field, the address and what to do; none shows a credential."""

    def test_credentials_reach_git_and_nothing_else(
        self, tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with serving(tmp_path / "git", login="reader:s3cr3t-pass") as server:
            login = secret(tmp_path, username="reader", password="s3cr3t-pass")
            assert paths(records(tmp_path, code={"url": f"{server.url}/app"}, secretRef=login)) == TAKEN
        fetched = tmp_path / "work" / "collected" / "d"
        kept = b"".join(f.read_bytes() for f in fetched.rglob("*") if f.is_file())
        assert b"s3cr3t-pass" not in kept
        assert "s3cr3t-pass" not in capsys.readouterr().out

    def test_a_token_is_the_password(self, tmp_path: Path, repository: Path) -> None:
        with serving(tmp_path / "git", login="git:t0ken") as server:
            login = secret(tmp_path, token="t0ken")
            assert records(tmp_path, code={"url": f"{server.url}/app"}, secretRef=login)

    @pytest.mark.parametrize(
        ("values", "hint"), [({}, "give secretRef"), ({"token": "wrong"}, "check the values in secretRef")]
    )
    def test_no_access(self, tmp_path: Path, repository: Path, values: dict[str, str], hint: str) -> None:
        reference = {"secretRef": secret(tmp_path, **values)} if values else {}
        with serving(tmp_path / "git", login="git:t0ken") as server, pytest.raises(UserError) as caught:
            records(tmp_path, code={"url": f"{server.url}/app"}, **reference)
        assert caught.value.message == f"dataset d: code.url {server.url}/app: access is refused"
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        assert hint in caught.value.hint

    def test_no_repository_and_no_ref(self, tmp_path: Path, server: GitServer, repository: Path) -> None:
        with pytest.raises(UserError, match="there is no such repository"):
            records(tmp_path, code={"url": f"{server.url}/other"})
        with pytest.raises(UserError, match="there is no ref nowhere") as caught:
            records(tmp_path, code={"url": f"{server.url}/app", "ref": "nowhere"})
        assert "check ref" in caught.value.hint
        with pytest.raises(UserError, match="has no folder 'nowhere' at commit"):
            records(tmp_path, code={"url": f"{server.url}/app", "path": "nowhere"})

    def test_unknown_host(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the host is unknown") as caught:
            records(tmp_path, code={"url": "http://no-such-host.invalid/app"})
        assert caught.value.exit_code == ExitCode.INVALID_DATA

    def test_nobody_listens(self, tmp_path: Path) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            with pytest.raises(UserError, match="gave no answer in 3 tries") as caught:
                records(tmp_path, code={"url": f"http://127.0.0.1:{unused.getsockname()[1]}/app"})
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE

    @pytest.mark.parametrize(
        ("status", "code"), [(503, ExitCode.SOURCE_UNAVAILABLE), (429, ExitCode.SOURCE_UNAVAILABLE)]
    )
    def test_a_busy_server_is_asked_again(
        self, tmp_path: Path, server: GitServer, repository: Path, status: int, code: ExitCode
    ) -> None:
        server.refuse_with = status
        with pytest.raises(UserError, match=str(status)) as caught:
            records(tmp_path, code={"url": f"{server.url}/app"})
        assert caught.value.exit_code == code
        assert len(server.requests) == 3

    def test_an_own_authority(self, tmp_path: Path, repository: Path) -> None:
        tls, pem = own_authority(tmp_path)
        with serving(tmp_path / "git", tls=tls) as server:
            with pytest.raises(UserError, match="certificate is not trusted") as caught:
                records(tmp_path, code={"url": f"{server.url}/app"})
            assert "ca.crt" in caught.value.hint
            login = secret(tmp_path, ca_crt=pem.read_text())
            assert paths(records(tmp_path, code={"url": f"{server.url}/app"}, secretRef=login)) == TAKEN


class TestRedirects:
    """The Secret's values are for the scheme, host and port that the manifest names."""

    @pytest.fixture
    def login(self, tmp_path: Path) -> dict[str, str]:
        return secret(tmp_path, username="reader@example.org", password="s3cr3t-pass")

    @staticmethod
    def asking(asked: Asked) -> Reply:
        return Reply(status=401, headers={"WWW-Authenticate": 'Basic realm="git"'})

    @pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2"], ids=["another port", "another host"])
    @pytest.mark.parametrize("asks_first", [False, True])
    def test_another_host_never_gets_the_password(
        self, tmp_path: Path, login: dict[str, str], host: str, asks_first: bool
    ) -> None:
        with web(self.asking, host=host) as other:

            def first(asked: Asked) -> Reply:
                if asks_first and not asked.authorization:
                    return self.asking(asked)
                return Reply(status=302, headers={"Location": other.url + asked.target})

            with web(first) as named, pytest.raises(UserError) as caught:
                records(tmp_path, code={"url": f"{named.url}/app"}, secretRef=login)
        assert other.asked, "the redirect is followed"
        assert not [a.authorization for a in other.asked if a.authorization]
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        assert "s3cr3t-pass" not in str(caught.value)
        if not asks_first:
            assert caught.value.message == (
                f"dataset d: code.url {named.url}/app: leads to {other.url}, which asks for a password, and the credentials "
                f"of secretRef are for {named.url} alone"
            )
            assert "give that repository's own address in code.url" in caught.value.hint

    def test_another_path_of_the_same_host_does(self, tmp_path: Path, repository: Path, login: dict[str, str]) -> None:
        with serving(tmp_path / "git", login="reader@example.org:s3cr3t-pass", moved={"/old": "/app"}) as server:
            assert paths(records(tmp_path, code={"url": f"{server.url}/old"}, secretRef=login)) == TAKEN

    def test_a_public_repository_may_have_moved_to_another_host(
        self, tmp_path: Path, server: GitServer, repository: Path, login: dict[str, str]
    ) -> None:
        def first(asked: Asked) -> Reply:
            return Reply(status=301, headers={"Location": server.url + asked.target})

        with web(first, host="127.0.0.2") as named:
            assert paths(records(tmp_path, code={"url": f"{named.url}/app"}, secretRef=login)) == TAKEN


class TestFromAFolder:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "volumes" / "repos" / "app"
        for name, content in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    def test_the_same_files_as_from_git(self, tmp_path: Path, folder: Path) -> None:
        found = records(tmp_path, code={"storageUri": "pvc://repos/app"})
        assert paths(found) == TAKEN
        assert found[0]["repository"] == "pvc://repos/app"

    def test_gitignore_is_honoured_everywhere(self, tmp_path: Path, folder: Path) -> None:
        (folder / ".gitignore").write_text("/tool.py\n*.tpl\n")
        (folder / "src" / ".gitignore").write_text("*.cs\n!Program.cs\n")
        (folder / "src" / "Other.cs").write_text("class Other { }")
        found = paths(records(tmp_path, code={"storageUri": "pvc://repos/app"}))
        assert found == ["Makefile", "config/app.json", "deploy/values.yaml", "src/Notify/Program.cs", "utf16.cs"]

    def test_a_work_tree_with_its_repository(self, tmp_path: Path, folder: Path) -> None:
        git(folder, "init", "--quiet")
        git(folder, "config", "user.name", "x")
        os.symlink("/etc/hostname", folder / "link.txt")
        assert paths(records(tmp_path, code={"storageUri": "pvc://repos/app"})) == TAKEN

    def test_no_such_claim_or_folder(self, tmp_path: Path, folder: Path) -> None:
        with pytest.raises(UserError, match=r"code.storageUri pvc://other/app: claim other is not mounted"):
            records(tmp_path, code={"storageUri": "pvc://other/app"})
        with pytest.raises(UserError, match=r"code.storageUri pvc://repos/ap is not a folder") as caught:
            records(tmp_path, code={"storageUri": "pvc://repos/ap"})
        assert caught.value.hint.endswith("has: app")


def test_a_file_with_a_secret_is_dropped_on_demand(tmp_path: Path, server: GitServer) -> None:
    commit(tmp_path / "git" / "app", {"a.py": "key = 'AKIAIOSFODNN7EXAMPLE'\n", "b.py": "x = 1\n"})
    assert paths(records(tmp_path, code={"url": f"{server.url}/app", "secrets": "DropFile"})) == ["b.py"]
    begin_anew(tmp_path)
    kept = records(tmp_path, code={"url": f"{server.url}/app"})
    assert kept[0]["text"] == "key = '<redacted:aws-access-key>'\n"


def test_a_source_that_changes_begins_anew(tmp_path: Path, server: GitServer, repository: Path) -> None:
    records(tmp_path, code={"url": f"{server.url}/app"})
    server.requests.clear()
    run = context(tmp_path, code={"url": f"{server.url}/app", "exclude": ["*.py"]})
    assert "tool.py" not in [r["path"] for r in collected(run.datasets[0], run)]
    assert server.requests
