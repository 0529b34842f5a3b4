"""A value put into a repository: git's own server, over HTTP on the loopback address."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers.git_server import GitServer, commit, git, serving
from tests.unit.trainer.exports.results import Trained, trained
from tests.webserver import Reply, web
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError

LOGIN = {"username": "bot", "password": "correct-horse"}
DEPLOYMENT = "# the agent\nimage:   # by training\n  tag: 'v0'  # here\nreplicas: 2\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    work = tmp_path / "work"
    commit(work, {"deploy/agent.yaml": DEPLOYMENT, "README.md": "x\n"})
    git(work, "clone", "--quiet", "--bare", str(work), str(tmp_path / "served" / "fleet.git"))
    with serving(tmp_path / "served", login=":".join(LOGIN.values())) as running:
        yield running


def fleet(tmp_path: Path) -> Path:
    return tmp_path / "served" / "fleet.git"


def history(tmp_path: Path, branch: str = "main") -> list[str]:
    return git(fleet(tmp_path), "log", "--format=%s", branch).splitlines()


def content(tmp_path: Path, path: str, branch: str = "main") -> str:
    done = subprocess.run(
        ["git", "show", f"{branch}:{path}"], cwd=fleet(tmp_path), capture_output=True, text=True, check=True
    )
    return done.stdout


def run_of(tmp_path: Path, server: GitServer, *, name: str = "tiny", version: str = "v1", **target: Any) -> Trained:
    fields = {"repository": f"{server.url}/fleet.git", "value": "{version}", "secretRef": {"name": "bot"}, **target}
    export = {"name": "bump", "git": fields}
    secrets = {"bot": LOGIN, "wrong": {**LOGIN, "password": "wrong-horse"}}
    return trained(tmp_path, [export], name=name, version=version, secrets=secrets)


YAML = {"path": "deploy/agent.yaml", "yamlPath": "image.tag"}
FILE = {"path": "MODEL_VERSION"}


def test_one_value_of_a_yaml_file(tmp_path: Path, server: GitServer) -> None:
    run = run_of(tmp_path, server, **YAML)
    run.check("bump")
    assert history(tmp_path) == ["x"], "a check pushes nothing"
    left = run.send("bump")
    assert content(tmp_path, "deploy/agent.yaml") == DEPLOYMENT.replace("'v0'", "'v1'")
    assert history(tmp_path) == ["agent-sre: model v1", "x"]
    assert left.version == git(fleet(tmp_path), "rev-parse", "main")
    assert git(fleet(tmp_path), "log", "-1", "--format=%an %ae") == "Trainyard trainyard@localhost"


def test_a_file_that_is_made(tmp_path: Path, server: GitServer) -> None:
    author = {"name": "The Bot", "email": "bot@example.org"}
    run = run_of(tmp_path, server, **FILE, author=author, message="Serve {version} of {agent}")
    run.check("bump")
    run.send("bump")
    assert content(tmp_path, "MODEL_VERSION") == "v1\n"
    assert git(fleet(tmp_path), "log", "-1", "--format=%cn %ce %s") == "The Bot bot@example.org Serve v1 of agent-sre"


def test_the_same_again_commits_nothing(tmp_path: Path, server: GitServer) -> None:
    run = run_of(tmp_path, server, **YAML)
    first = run.send("bump")
    run.forget("bump")
    assert run.send("bump") == first
    assert len(history(tmp_path)) == 2
    run_of(tmp_path, server, name="other", **YAML).send("bump")
    assert len(history(tmp_path)) == 2, "another run with the same value"


def test_a_commit_that_has_arrived_is_not_made_again_over_a_newer_one(tmp_path: Path, server: GitServer) -> None:
    old = run_of(tmp_path, server, **YAML)
    first = old.send("bump")
    run_of(tmp_path, server, name="newer", version="v2", **YAML).send("bump")
    old.forget("bump")
    assert old.send("bump") == first
    assert "'v2'" in content(tmp_path, "deploy/agent.yaml")


def test_many_push_at_once_and_none_is_lost(tmp_path: Path, server: GitServer) -> None:
    runs = [run_of(tmp_path, server, name=f"run-{n}", path=f"versions/{n}") for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda run: run.send("bump"), runs))
    assert len(history(tmp_path)) == 5
    assert [content(tmp_path, f"versions/{n}") for n in range(4)] == ["v1\n"] * 4


def test_back_is_what_stood_there_before(tmp_path: Path, server: GitServer) -> None:
    run_of(tmp_path, server, **YAML).send("bump")
    newer = run_of(tmp_path, server, name="newer", version="v2", **YAML)
    newer.send("bump")
    for _ in range(2):  # the second time there is nothing left to be done
        newer.point("bump", back=True)
        assert content(tmp_path, "deploy/agent.yaml") == DEPLOYMENT.replace("'v0'", "'v1'")
    assert history(tmp_path)[0] == "Roll back: agent-sre: model v2"
    assert len(history(tmp_path)) == 4
    for _ in range(2):  # and forward again
        newer.point("bump")
        assert content(tmp_path, "deploy/agent.yaml") == DEPLOYMENT.replace("'v0'", "'v2'")
    newer.point("bump", back=True)
    assert "'v1'" in content(tmp_path, "deploy/agent.yaml")


def test_back_leaves_alone_what_others_have_put_there_since(tmp_path: Path, server: GitServer) -> None:
    old = run_of(tmp_path, server, **YAML)
    old.send("bump")
    run_of(tmp_path, server, name="newer", version="v2", **YAML).send("bump")
    old.point("bump", back=True)
    assert "'v2'" in content(tmp_path, "deploy/agent.yaml")
    made = run_of(tmp_path, server, name="made", **FILE)
    made.send("bump")
    made.point("bump", back=True)
    assert content(tmp_path, "MODEL_VERSION") == "v1\n", "there was nothing before"


def test_back_after_many_commits_of_others(tmp_path: Path, server: GitServer) -> None:
    run = run_of(tmp_path, server, **YAML)
    run.send("bump")
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", str(fleet(tmp_path)), str(clone))
    for number in range(60):
        git(clone, "commit", "--quiet", "--allow-empty", f"--message={number}")
    git(clone, "push", "--quiet")
    run.point("bump", back=True)
    assert content(tmp_path, "deploy/agent.yaml") == DEPLOYMENT


def test_a_branch_that_is_made(tmp_path: Path, server: GitServer) -> None:
    run = run_of(tmp_path, server, **YAML, branch="models/{agent}", branchFrom="main")
    run.check("bump")
    run.send("bump")
    assert history(tmp_path) == ["x"]
    assert history(tmp_path, "models/agent-sre") == ["agent-sre: model v1", "x"]


def hook(tmp_path: Path, script: str) -> None:
    file = fleet(tmp_path) / "hooks" / "pre-receive"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IEXEC)


def test_a_protected_branch(tmp_path: Path, server: GitServer) -> None:
    hook(tmp_path, "echo 'GH006: Protected branch update failed for refs/heads/main.' >&2; exit 1")
    with pytest.raises(UserError) as caught:
        run_of(tmp_path, server, **YAML).send("bump")
    assert "the server refuses a commit on branch main: " in caught.value.message
    assert "GH006: Protected branch update failed" in caught.value.message
    assert "branchFrom" in caught.value.hint
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG


def test_a_server_that_fails_once_gets_the_commit_once(tmp_path: Path, server: GitServer) -> None:
    run = run_of(tmp_path, server, **YAML)
    server.refuse_with = 503
    with pytest.raises(UserError) as caught:
        run.send("bump")
    assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE
    server.refuse_with = 0
    run.send("bump")
    assert len(history(tmp_path)) == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**YAML, "branch": "nothing"}, "there is no branch nothing"),
        ({**YAML, "branch": "new", "branchFrom": "nothing"}, "there is no branch nothing"),
        (
            {**YAML, "yamlPath": "image.digest"},
            "deploy/agent.yaml on branch main: image.digest: there is no digest at line 3",
        ),
        ({**YAML, "path": "nothing.yaml"}, "there is no nothing.yaml on branch main"),
        ({"path": "deploy"}, "deploy is no regular file"),
        ({"path": "README.md/x"}, "README.md/x cannot be a file there"),
        ({**YAML, "secretRef": {"name": "wrong"}}, "access is refused"),
        ({**YAML, "secretRef": {"name": "absent"}}, "secret absent is not mounted"),
    ],
)
def test_what_is_known_before_the_training(
    tmp_path: Path, server: GitServer, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        run_of(tmp_path, server, **fields).check("bump")
    assert message in caught.value.message
    assert "spec.exports[bump].git" in caught.value.message
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    assert "horse" not in str(caught.value)
    assert history(tmp_path) == ["x"]


def test_no_repository_there(tmp_path: Path, server: GitServer) -> None:
    with pytest.raises(UserError, match="there is no such repository"):
        run_of(tmp_path, server, **FILE, repository=f"{server.url}/nothing.git").check("bump")


@pytest.mark.parametrize("page", [b"<!doctype html><title>Sign in</title>", b"<html>\n<body>Sign in</body>\n</html>\n"])
def test_a_web_page_is_no_repository(tmp_path: Path, server: GitServer, page: bytes) -> None:
    """As hosts show one to whoever has not signed in, with the status of success. Git takes some for an empty repository."""
    with web(lambda _: Reply(page, headers={"Content-Type": "text/html"})) as site:
        repository = f"{site.url}/group/fleet"
        with pytest.raises(UserError) as caught:
            run_of(tmp_path, server, **FILE, repository=repository).check("bump")
    told = f"spec.exports[bump].git.repository {repository}: what answers there is no git repository or an empty one"
    assert told in str(caught.value)
    assert "write in spec.exports[bump].git.repository the address that git clone takes" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
