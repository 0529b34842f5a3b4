"""Where the client goes and how it logs in: kubeconfigs as kubectl reads them, and TLS both ways."""

import base64
import json
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.webserver import Asked, Reply, own_authority, web
from trainyard.client import Away, NoAccess, NotAllowed, connect
from trainyard.client.kubeconfig import contexts, logged_in, read_access
from trainyard.client.transport import Api


def write(folder: Path, *, server: str = "https://one:6443", user: dict[str, Any] | None = None, **cluster: Any) -> str:
    path = folder / "config"
    config = {
        "current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(json.dumps(config))
    return str(path)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_data_and_files_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    (tmp_path / "token").write_text("t\n")
    by_file = write(tmp_path, user={"tokenFile": "token"}, **{"certificate-authority": "ca.pem"})
    access = read_access(kubeconfig=by_file)
    assert (access.authority, access.token, access.namespace) == ("CA", "t", "lab")
    by_data = write(tmp_path, user={"token": "t"}, **{"certificate-authority-data": encoded("CA")})
    assert read_access(kubeconfig=by_data) == access


def test_of_several_files_the_first_that_knows_a_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    files = [write(first, server="https://one:1"), write(second, server="https://two:2"), str(tmp_path / "missing")]
    monkeypatch.setenv("KUBECONFIG", ":".join(files))
    assert read_access().server == "https://one:1"
    assert contexts() == ["a", "a"]


def test_credentials_are_never_printed(tmp_path: Path) -> None:
    assert "geheim" not in repr(read_access(kubeconfig=write(tmp_path, user={"token": "geheim"})))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no YAML"),
        ("[1]", "is no kubeconfig"),
        ("{}", "no current context"),
        ('{"current-context": "b", "contexts": [{"name": "a"}]}', "no context 'b'; it has a"),
        ('{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "c"}}]}', "no cluster 'c'"),
    ],
)
def test_a_broken_kubeconfig_says_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(NoAccess, match=said):
        read_access(kubeconfig=str(path))


def test_an_exec_plugin_is_asked_and_its_token_sent(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        '#!/bin/sh\necho once >> "$0.calls"\n'
        'echo "{\\"status\\": {\\"token\\": \\"$PREFIX-$1-$(echo "$KUBERNETES_EXEC_INFO" | grep -c ExecCredential)\\"}}"\n'
    )
    plugin.chmod(0o755)
    words = {"command": str(plugin), "args": ["x"], "env": [{"name": "PREFIX", "value": "p"}]}
    with web(lambda asked: Reply({"items": []})) as server:
        runs = connect(kubeconfig=write(tmp_path, server=server.url, user={"exec": words}))
        runs.list()
        runs.list()
        assert [asked.authorization for asked in server.asked] == ["Bearer p-x-1"] * 2
    assert Path(f"{plugin}.calls").read_text() == "once\n"


def test_a_token_that_has_expired_is_asked_for_again_once(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        '#!/bin/sh\necho x >> "$0.calls"\necho "{\\"status\\": {\\"token\\": \\"$(wc -l < "$0.calls")\\"}}"\n'
    )
    plugin.chmod(0o755)

    def answer(asked: Asked) -> Reply:
        return Reply({"items": []}) if asked.authorization.strip() == "Bearer 2" else Reply({"message": "no"}, 401)

    with web(answer) as server:
        config = write(tmp_path, server=server.url, user={"exec": {"command": str(plugin)}})
        assert connect(kubeconfig=config).list() == []
    with web(lambda asked: Reply({"message": "no"}, 401)) as server, pytest.raises(NotAllowed, match="log in again"):
        connect(kubeconfig=write(tmp_path, server=server.url, user={"exec": {"command": str(plugin)}})).list()


def test_a_plugin_that_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    words = {"command": "no-such-plugin", "installHint": "apt install it"}
    with pytest.raises(NoAccess, match="no-such-plugin, which is not there: apt install it"):
        logged_in(read_access(kubeconfig=write(tmp_path, user={"exec": words})))


def test_both_sides_show_their_certificates(tmp_path: Path) -> None:
    tls, certificate = own_authority(tmp_path)
    command = (
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=somebody "
        f"-keyout {tmp_path}/user.key -out {tmp_path}/user.pem"
    )
    subprocess.run(command, shell=True, check=True, capture_output=True)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(f"{tmp_path}/user.pem")
    user = {"client-certificate": "user.pem", "client-key": "user.key"}
    with web(lambda asked: Reply({"items": []}), tls=tls) as server:
        authority: dict[str, Any] = {"certificate-authority-data": encoded(certificate.read_text())}
        assert connect(kubeconfig=write(tmp_path, server=server.url, user=user, **authority)).list() == []
        with pytest.raises(Away, match="is not to be trusted"):
            connect(kubeconfig=write(tmp_path, server=server.url, user=user)).list()
        with pytest.raises(Away):
            connect(kubeconfig=write(tmp_path, server=server.url, **authority)).list()
    assert list(tmp_path.glob("trainyard-*")) == []


def test_a_connection_that_the_server_has_closed_is_opened_again(tmp_path: Path) -> None:
    with web(lambda asked: Reply({"items": []}, headers={"Connection": "close"})) as server:
        api = Api(read_access(kubeconfig=write(tmp_path, server=server.url)))
        assert [api.get("/a"), api.get("/b")] == [{"items": []}] * 2


def test_a_server_that_is_no_api_server_is_told(tmp_path: Path) -> None:
    with web(lambda asked: Reply(b"<html>")) as server, pytest.raises(Away, match="does not answer like an API server"):
        connect(kubeconfig=write(tmp_path, server=server.url)).list()


def test_lists_are_read_in_pages(tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply:
        more = asked.query.get("continue") is None
        item = {"metadata": {"name": "a" if more else "b", "namespace": "lab"}}
        return Reply({"items": [item], "metadata": {"continue": "next"} if more else {}})

    with web(answer) as server:
        assert [run.name for run in connect(kubeconfig=write(tmp_path, server=server.url)).list()] == ["a", "b"]
        assert all(asked.query["limit"] == "500" for asked in server.asked)
