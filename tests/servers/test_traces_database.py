"""Traces straight from PostgreSQL: a real server, its own refusals, and what a store would export of the same rows."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.ports import free_port
from tests.servers.postgresql import PASSWORD, READER, Postgres, postgresql
from tests.unit.trainer.data.collect.collecting import begin_anew, context, records
from trainyard.trainer.data.collect import postgres
from trainyard.trainer.data.collect.run import collected
from trainyard.trainer.data.collect.trace_forms import trace_of, written
from trainyard.trainer.data.probe import probe
from trainyard.trainer.data.version import ensure_dataset
from trainyard.trainer.errors import UserError

pytestmark = pytest.mark.servers

SECRET = {"name": "tunix-rt-training-secrets"}


def payload(n: int, **more: Any) -> dict[str, Any]:
    return {
        "trace_version": "1.0",
        "prompt": f"What beats card {n}?",
        "final_answer": f"card {n + 1}",
        "steps": [
            {"i": 0, "type": "look", "content": "look at both"},
            {"i": 1, "type": "say", "content": "say the higher"},
        ],
        "meta": {"source": "ungar" if n % 2 else "web", "seed": n, **more},
    }


@pytest.fixture(scope="module")
def store() -> Iterator[Postgres]:
    with postgresql() as server:
        rows = [(str(uuid.UUID(int=n)), f"2026-10-01T00:{n // 60:02}:{n % 60:02}Z", payload(n)) for n in range(900)]
        server.insert(rows)
        yield server


def place(folder: Path, url: str, **more: str) -> Path:
    secret = folder / "secrets" / SECRET["name"]
    secret.mkdir(parents=True, exist_ok=True)
    for key, value in {"database-url": url, "tunix-api-key": "k", **more}.items():
        (secret / key).write_text(value)
    return folder


def read(folder: Path, **traces: Any) -> list[dict[str, Any]]:
    begin_anew(folder)
    database = traces.pop("database", {})
    return records(folder, traces={"database": database, **traces}, secretRef=SECRET)


def test_the_newest_that_match_in_one_snapshot(store: Postgres, tmp_path: Path) -> None:
    found = read(place(tmp_path, store.url), filters={"source": "ungar"}, limit=300)
    assert [r["metadata"]["seed"] for r in found] == list(range(899, 299, -2)), "more than one answer of the cursor"
    assert found[0] == {
        "id": str(uuid.UUID(int=899)),
        "prompts": "What beats card 899?",
        "trace_steps": ["look at both", "say the higher"],
        "final_answer": "card 900",
        "metadata": {"created_at": "2026-10-01T00:14:59Z", "trace_version": "1.0", "source": "ungar", "seed": 899},
    }


def test_filters_compare_whole_values_and_never_become_part_of_the_statement(store: Postgres, tmp_path: Path) -> None:
    place(tmp_path, store.url)
    assert [r["metadata"]["seed"] for r in read(tmp_path, filters={"seed": 7})] == [7]
    assert read(tmp_path, filters={"seed": "7"}) == []
    assert read(tmp_path, filters={"source": "ungar' OR 1=1 --", "x'y\"z": ":key0"}) == []


def test_chance_goes_by_the_seed(store: Postgres, tmp_path: Path) -> None:
    place(tmp_path, store.url)
    first, again, other = (read(tmp_path, limit=50, selectionStrategy="Random", seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert len({r["id"] for r in first}) == 50


def test_every_form_can_be_made_of_what_a_dataset_keeps(store: Postgres, tmp_path: Path) -> None:
    place(tmp_path, store.url)
    kept = read(tmp_path, exportFormat="TRM", limit=5)
    for form in ("Trace", "TrainingExample", "TunixSFT"):
        assert [written(trace_of(record), form) for record in kept] == read(tmp_path, exportFormat=form, limit=5)
    example = read(tmp_path, exportFormat="TrainingExample", limit=1)[0]
    assert example["response"] == "Reasoning:\n1. look at both\n2. say the higher\nAnswer: card 900"


def test_a_killed_step_reads_no_row_twice(store: Postgres, tmp_path: Path) -> None:
    place(tmp_path, store.url)
    whole = read(tmp_path, limit=10)
    run = context(tmp_path, traces={"database": {}, "limit": 10}, secretRef=SECRET)
    place(tmp_path, "postgresql://nobody:x@127.0.0.1:1/none")
    assert list(collected(run.datasets[0], run)) == whole, "the piece is there, so nobody is asked"


def test_a_reader_without_other_rights_and_an_escaped_password(store: Postgres, tmp_path: Path) -> None:
    user, password = READER
    url = f"postgres://{user}:{quote(password, safe='')}@127.0.0.1:{store.port}/traces?sslmode=disable"
    assert len(read(place(tmp_path, url), limit=3)) == 3
    apart = f"postgresql://127.0.0.1:{store.port}/traces"
    assert len(read(place(tmp_path, apart, username=user, password=password), limit=3)) == 3


@pytest.mark.parametrize(
    ("change", "database", "words"),
    [
        ({"password": "wrong"}, {}, "the login is refused: password authentication failed"),
        ({"user": "nobody"}, {}, "the login is refused: "),
        ({"name": "other"}, {}, "there is no such database"),
        ({}, {"table": "tracez"}, 'there is no such table: relation "tracez" does not exist .*correct traces.database.table'),
        ({}, {"table": "old.traces"}, "there is no such (schema|table)"),
        ({}, {"payloadColumn": "body"}, 'there is no such column: column "body" does not exist'),
        ({}, {"payloadColumn": "id"}, "not of the kind it should be: .*payloadColumn has to be json or jsonb"),
        ({"query": "?sslmode=require"}, {}, "the server has no TLS, and sslmode=require asks for it"),
        ({"query": "?sslmode=maybe"}, {}, "unknown sslmode .*one of disable, prefer"),
        ({"host": "no-such-host.invalid"}, {}, "the host is unknown"),
        ({"scheme": "mysql"}, {}, "no address of a PostgreSQL database"),
        ({"port": "x"}, {}, "is no address"),
    ],
)  # fmt: skip
def test_what_is_refused(
    store: Postgres, tmp_path: Path, change: dict[str, str], database: dict[str, str], words: str
) -> None:
    given = {"scheme": "postgresql", "user": "trainyard", "password": PASSWORD, "host": "127.0.0.1", "name": "traces"}
    parts = {**given, "port": str(store.port), "query": "", **change}
    url = "{scheme}://{user}:{password}@{host}:{port}/{name}{query}".format(**parts)
    with pytest.raises(UserError, match=words) as told:
        read(place(tmp_path, url), database=database)
    assert told.value.reason == "InvalidData"
    assert str(told.value).startswith("dataset d: traces.database: ")
    assert parts["password"] not in str(told.value)


def test_rows_that_the_user_may_not_read(store: Postgres, tmp_path: Path) -> None:
    store.run("CREATE TABLE hidden AS SELECT * FROM traces LIMIT 1")
    user, password = READER
    url = f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{store.port}/traces"
    with pytest.raises(UserError, match=r"the user may not read it: permission denied for table hidden .*GRANT SELECT"):
        read(place(tmp_path, url), database={"table": "hidden"})


def test_a_server_that_is_away_is_asked_again_and_then_left_to_the_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(postgres, "PAUSES", (0.0, 0.0))
    url = f"postgresql://u:secret-word@127.0.0.1:{free_port()}/traces"
    with pytest.raises(UserError, match="Connection refused") as told:
        read(place(tmp_path, url))
    assert told.value.reason == "SourceUnavailable"
    printed = capsys.readouterr()
    assert (printed.out + printed.err).count("trying again") == 2
    assert "secret-word" not in printed.out + printed.err + str(told.value)


def test_a_secret_without_the_address(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"the Secret has no database-url .*postgresql://HOST:5432/DATABASE, with USER:PASSWORD@ before the host",
    ):
        read(place(tmp_path, ""))


def test_tls_and_whom_the_certificate_names(tmp_path: Path) -> None:
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=db -addext subjectAltName=IP:127.0.0.1"
    pair = tmp_path / "server.crt", tmp_path / "server.key"
    subprocess.run([*words.split(), "-out", str(pair[0]), "-keyout", str(pair[1])], check=True, capture_output=True)
    with postgresql(tls=pair) as server:
        server.insert([(str(uuid.uuid4()), "2026-10-01T00:00:00Z", payload(1))])
        user, password = READER
        at = f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{server.port}/traces"
        authority = {"ca.crt": pair[0].read_text()}
        assert len(read(place(tmp_path / "trusted", at, **authority))) == 1
        assert len(read(place(tmp_path / "require", f"{at}?ssl=require"))) == 1
        with pytest.raises(UserError, match=r"its certificate is not trusted: self.signed certificate .*as ca.crt"):
            read(place(tmp_path / "unknown", f"{at}?sslmode=verify-full"))
        other = at.replace("127.0.0.1", "localhost")
        with pytest.raises(UserError, match="its certificate is not trusted: Hostname mismatch"):
            read(place(tmp_path / "misnamed", other, **authority))
        with pytest.raises(UserError, match=r"the login is refused: .*no encryption"):
            read(place(tmp_path / "plain", f"{at}?sslmode=disable"))


def test_the_status_says_what_was_built(store: Postgres, tmp_path: Path) -> None:
    begin_anew(place(tmp_path, store.url))
    run = context(
        tmp_path,
        traces={
            "database": {},
            "datasetName": "high_card_duel",
            "datasetVersion": "v1",
            "exportFormat": "TRM",
            "limit": 40,
        },
        secretRef=SECRET,
        format="TRM",
        convertTo="Text",
        expectedCount=40,
    )
    run.work_dir.mkdir(exist_ok=True)
    built = ensure_dataset(run)
    told = built.manifest["datasets"][0]["built"]
    assert told == {
        "key": "high_card_duel-v1", "build_id": "u", "trace_count": 40, "manifest_path": f"{run.work_dir.name}/dataset/manifest.json",
    }  # fmt: skip
    assert json.dumps(built.manifest).find(PASSWORD) == -1


def test_a_dry_run_asks_once(store: Postgres, tmp_path: Path) -> None:
    asked = context(place(tmp_path, store.url), traces={"database": {}}, secretRef=SECRET)
    assert probe(asked.datasets[0], asked).fine
    misnamed = context(tmp_path, traces={"database": {"table": "tracez"}}, secretRef=SECRET)
    found = probe(misnamed.datasets[0], misnamed)
    assert not found.fine
    assert "there is no such table" in str(found)
    place(tmp_path, f"postgresql://u:secret-word@127.0.0.1:{free_port()}/traces")
    assert probe(asked.datasets[0], asked).state == "refused"
