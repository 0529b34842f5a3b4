"""Sources: files, folders, patterns, volumes, web servers, and an S3 server; and what they say when they do not work."""

from __future__ import annotations

import base64
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.webserver import Asked, Reply, Web, own_authority, web
from trainyard.api.exitcodes import ExitCode
from trainyard.api.run.dataset import Dataset
from trainyard.trainer.data import sources
from trainyard.trainer.data.sources import SourceFile, fetch
from trainyard.trainer.errors import UserError


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "PAUSES", (0.01, 0.01))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("volumes", "secrets", "staging"):
        (tmp_path / name).mkdir()
    return tmp_path


def get(place: Path, uri: str, **fields: Any) -> list[SourceFile]:
    dataset = Dataset.model_validate({"name": "d", "storageUri": uri, **fields})
    return fetch(dataset, volumes=place / "volumes", secrets=place / "secrets", staging=place / "staging")


def secret(place: Path, **values: str) -> dict[str, str]:
    folder = place / "secrets" / "login"
    folder.mkdir(exist_ok=True)
    for key, value in values.items():
        (folder / key.replace("ca_crt", "ca.crt")).write_text(value + "\n")
    return {"name": "login"}


class TestFiles:
    @pytest.fixture
    def claim(self, place: Path) -> Path:
        folder = place / "volumes" / "data" / "set"
        (folder / "deep").mkdir(parents=True)
        (folder / "a.jsonl").write_text('{"text": "a"}')
        (folder / "deep" / "b.txt").write_text("b")
        (folder / "picture.png").write_bytes(b"png")
        (folder / ".hidden.jsonl").write_text("{}")
        return folder

    def test_a_file_on_a_volume(self, place: Path, claim: Path) -> None:
        (found,) = get(place, "pvc://data/set/a.jsonl")
        assert found.path == claim / "a.jsonl"
        assert found.name == "a.jsonl"

    def test_a_folder_takes_what_can_be_read(
        self, place: Path, claim: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert [f.path.name for f in get(place, "pvc://data/set")] == ["a.jsonl", "b.txt"]
        assert "1 files of unknown kind are passed over" in capsys.readouterr().out

    def test_a_pattern(self, place: Path, claim: Path) -> None:
        assert [f.path.name for f in get(place, "pvc://data/set/**/*.txt")] == ["b.txt"]
        assert [f.path.name for f in get(place, f"file://{claim}/*.jsonl")] == ["a.jsonl"]

    def test_an_unmounted_claim(self, place: Path) -> None:
        with pytest.raises(UserError) as caught:
            get(place, "pvc://other/a.jsonl")
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        assert "claim other is not mounted" in caught.value.message

    def test_a_missing_file_names_its_neighbours(self, place: Path, claim: Path) -> None:
        with pytest.raises(UserError) as caught:
            get(place, "pvc://data/set/b.jsonl")
        assert caught.value.message == "dataset d: pvc://data/set/b.jsonl does not exist"
        assert "a.jsonl, deep, picture.png" in caught.value.hint

    def test_an_unknown_suffix_asks_for_the_format(self, place: Path, claim: Path) -> None:
        with pytest.raises(UserError, match="does not tell how to read it"):
            get(place, "pvc://data/set/picture.png")
        assert get(place, "pvc://data/set/picture.png", fileFormat="Text")

    def test_a_pattern_without_matches(self, place: Path, claim: Path) -> None:
        with pytest.raises(UserError, match=r"has no file that can be read \(0 files looked at\)"):
            get(place, "pvc://data/set/*.parquet")

    def test_no_way_out_of_the_volume(self, place: Path, claim: Path) -> None:
        (place / "volumes" / "secret.jsonl").write_text("{}")
        with pytest.raises(UserError, match=r"contains \.\."):
            get(place, "pvc://data/set/../../secret.jsonl")


def answers() -> Callable[[Asked], Reply]:
    """What a server answers; `/flaky` fails twice before it works."""
    tries = Counter[str]()

    def answer(asked: Asked) -> Reply:
        tries[asked.path] += 1
        match asked.path:
            case "/data.jsonl":
                return Reply(b'{"text": "from the web"}\n')
            case "/moved.jsonl":
                return Reply(status=302, headers={"Location": "/data.jsonl"})
            case "/basic.jsonl":
                wanted = "Basic " + base64.b64encode(b"me:pass").decode()
                return Reply({}) if asked.authorization == wanted else Reply(status=401)
            case "/bearer.jsonl":
                return Reply({}) if asked.authorization == "Bearer t0ken" else Reply(status=403)
            case "/flaky.jsonl":
                return Reply(status=503) if tries[asked.path] < 3 else Reply({})
            case "/down.jsonl":
                return Reply(status=502)
            case "/cut.jsonl" if tries[asked.path] < 2:
                return Reply(b"{", headers={"Content-Length": "100", "Connection": "close"})
            case "/cut.jsonl":
                return Reply({"text": "a"})
        return Reply(status=404)

    return answer


@pytest.fixture
def server() -> Iterator[Web]:
    with web(answers()) as started:
        yield started


class TestWeb:
    def test_a_file(self, place: Path, server: Web) -> None:
        (found,) = get(place, f"{server.url}/data.jsonl")
        assert found.path.read_text() == '{"text": "from the web"}\n'
        assert found.name == "data.jsonl"

    def test_redirects_are_followed(self, place: Path, server: Web) -> None:
        (found,) = get(place, f"{server.url}/moved.jsonl")
        assert "from the web" in found.path.read_text()

    def test_credentials(self, place: Path, server: Web) -> None:
        assert get(place, f"{server.url}/basic.jsonl", secretRef=secret(place, username="me", password="pass"))
        (place / "secrets" / "login" / "username").unlink()
        assert get(place, f"{server.url}/bearer.jsonl", secretRef=secret(place, token="t0ken"))

    @pytest.mark.parametrize(("path", "status"), [("basic", 401), ("bearer", 403)])
    def test_refused(self, place: Path, server: Web, path: str, status: int) -> None:
        with pytest.raises(UserError) as caught:
            get(place, f"{server.url}/{path}.jsonl")
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        assert f"access is refused (HTTP {status})" in caught.value.message
        assert "give secretRef" in caught.value.hint
        assert len(server.asked) == 1, "asking again would not help"

    def test_wrong_credentials_do_not_show_up_in_the_message(self, place: Path, server: Web) -> None:
        with pytest.raises(UserError) as caught:
            get(place, f"{server.url}/bearer.jsonl", secretRef=secret(place, token="wr0ng"))
        assert "wr0ng" not in str(caught.value)
        assert "check the values in secretRef" in caught.value.hint

    def test_missing(self, place: Path, server: Web) -> None:
        with pytest.raises(UserError, match="HTTP 404") as caught:
            get(place, f"{server.url}/nothing.jsonl")
        assert caught.value.exit_code == ExitCode.INVALID_DATA

    def test_three_tries(self, place: Path, server: Web) -> None:
        assert get(place, f"{server.url}/flaky.jsonl")
        assert len(server.asked) == 3
        with pytest.raises(UserError) as caught:
            get(place, f"{server.url}/down.jsonl")
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE
        assert "did not answer in 3 tries: HTTP 502" in caught.value.message

    def test_a_connection_that_breaks_half_way(self, place: Path, server: Web) -> None:
        (found,) = get(place, f"{server.url}/cut.jsonl")
        assert found.path.read_text() == '{"text": "a"}'

    def test_nobody_listens(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(UserError) as caught:
            get(place, f"http://127.0.0.1:{port}/a.jsonl")
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE
        assert "Connection refused" in caught.value.message
        assert "0x" not in caught.value.message

    def test_an_unknown_host(self, place: Path) -> None:
        with pytest.raises(UserError) as caught:
            get(place, "http://no-such-host.invalid/a.jsonl")
        assert caught.value.exit_code in (ExitCode.INVALID_DATA, ExitCode.SOURCE_UNAVAILABLE)
        if caught.value.exit_code == ExitCode.INVALID_DATA:
            assert "the host no-such-host.invalid is unknown" in caught.value.message

    def test_a_private_certificate_authority(self, place: Path, tmp_path: Path) -> None:
        tls, certificate = own_authority(tmp_path)
        with web(answers(), tls=tls) as server:
            with pytest.raises(UserError, match="certificate is not trusted") as caught:
                get(place, f"{server.url}/data.jsonl")
            assert "ca.crt" in caught.value.hint
            assert get(place, f"{server.url}/data.jsonl", secretRef=secret(place, ca_crt=certificate.read_text()))


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    import boto3

    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )
    client.create_bucket(Bucket="datasets")
    client.put_object(Bucket="datasets", Key="runs/a.jsonl", Body=b'{"text": "one"}\n')
    client.put_object(Bucket="datasets", Key="runs/b.jsonl", Body=b'{"text": "two"}\n')
    client.put_object(Bucket="datasets", Key="runs/picture.png", Body=b"png")
    yield url
    server.stop()


class TestS3:
    def login(self, place: Path, s3: str) -> dict[str, str]:
        return secret(place, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_ENDPOINT_URL=s3)

    def test_an_object(self, place: Path, s3: str) -> None:
        (found,) = get(place, "s3://datasets/runs/a.jsonl", secretRef=self.login(place, s3))
        assert found.path.read_text() == '{"text": "one"}\n'
        assert found.name == "s3://datasets/runs/a.jsonl"

    def test_everything_below_a_prefix(self, place: Path, s3: str) -> None:
        found = get(place, "s3://datasets/runs/", secretRef=self.login(place, s3))
        assert [f.path.read_text() for f in found] == ['{"text": "one"}\n', '{"text": "two"}\n']

    @pytest.mark.parametrize(
        ("uri", "code"), [("s3://datasets/none.jsonl", "NoSuchKey"), ("s3://nowhere/a.jsonl", "NoSuchBucket")]
    )
    def test_what_does_not_exist(self, place: Path, s3: str, uri: str, code: str) -> None:
        with pytest.raises(UserError) as caught:
            get(place, uri, secretRef=self.login(place, s3))
        assert caught.value.exit_code == ExitCode.INVALID_DATA
        assert f"{uri} does not exist ({code})" in caught.value.message

    def test_a_server_that_is_away(self, place: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        login = secret(
            place, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}"
        )
        with pytest.raises(UserError) as caught:
            get(place, "s3://datasets/a.jsonl", secretRef=login)
        assert caught.value.exit_code == ExitCode.SOURCE_UNAVAILABLE

    def test_a_secret_that_is_not_mounted(self, place: Path) -> None:
        with pytest.raises(UserError, match="secret absent is not mounted"):
            get(place, "s3://datasets/a.jsonl", secretRef={"name": "absent"})
