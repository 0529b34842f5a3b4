"""PostgreSQL, from Debian's package: one server over a folder of its own, with a table of traces."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pg8000.native

from tests.ports import free_port
from tests.servers.restartable import KEPT, _run

OWNER = "trainyard"
PASSWORD = "correct-horse"
READER = ("reader", "battery/staple@1")
"""A login that may read traces; with characters that an address has to escape."""
TABLE = (
    "CREATE TABLE traces (id uuid PRIMARY KEY, created_at timestamptz NOT NULL, trace_version varchar(64) NOT NULL, "
    "payload json NOT NULL)"
)


def programs() -> Path:
    """The folder with initdb and postgres: the installed ones, or those of the package, unpacked and not installed."""
    if installed := sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        return installed[-1].parent
    place = KEPT / "postgresql"
    if not (found := sorted(place.glob("usr/lib/postgresql/*/bin"))):
        downloads = KEPT / "downloads-postgresql"
        shutil.rmtree(downloads, ignore_errors=True)
        downloads.mkdir(parents=True)
        downloads.chmod(0o777)  # apt downloads as a user of its own
        shown = subprocess.run(
            ["apt-cache", "depends", "postgresql"], capture_output=True, text=True, check=True
        ).stdout
        package = next(
            line.split()[-1] for line in shown.splitlines() if "Depends: postgresql-" in line and "-common" not in line
        )
        _run(["apt-get", "download", "-qq", package, "libpq5"], downloads)
        for one in downloads.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(one), str(place)], KEPT)
        shutil.rmtree(downloads)
        found = sorted(place.glob("usr/lib/postgresql/*/bin"))
    return found[-1]


@dataclass
class Postgres:
    """A running server."""

    port: int
    folder: Path
    process: Any = field(repr=False)
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """As the owner, in the form of SQLAlchemy's asyncpg."""
        return f"postgresql+asyncpg://{OWNER}:{PASSWORD}@{self.host}:{self.port}/traces"

    def run(self, statement: str, *, database: str = "traces", **values: Any) -> Any:
        connection = pg8000.native.Connection(
            OWNER, host=self.host, port=self.port, database=database, password=PASSWORD, ssl_context=False
        )
        try:
            return connection.run(statement, **values)
        finally:
            connection.close()

    def insert(self, rows: list[tuple[str, str, dict[str, Any]]]) -> None:
        """Id, time and payload of each trace."""
        data = json.dumps([{"id": i, "at": at, "payload": payload} for i, at, payload in rows])
        self.run(
            "INSERT INTO traces SELECT (r->>'id')::uuid, (r->>'at')::timestamptz, r->'payload'->>'trace_version', r->'payload' "
            "FROM json_array_elements((:data)::json) r",
            data=data,
        )


@contextmanager
def postgresql(*, tls: tuple[Path, Path] | None = None, host: str = "127.0.0.1") -> Iterator[Postgres]:
    """With an empty table of traces. `tls`: certificate and key, and then nothing but TLS is let in for `reader`."""
    folder = Path(tempfile.mkdtemp(prefix="trainyard-postgresql-"))
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # the server refuses to run as root
    who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    data, secret = folder / "data", folder / "password"
    secret.write_text(PASSWORD)
    if tls is not None:
        for source, name in zip(tls, ("server.crt", "server.key"), strict=True):
            shutil.copyfile(source, folder / name)
            (folder / name).chmod(0o600)
    for path in (folder, *folder.iterdir()):
        if user is not None:
            os.chown(path, user.pw_uid, user.pw_gid)
    tools, port = programs(), free_port()
    words = [
        str(tools / "initdb"),
        "-D",
        str(data),
        "-U",
        OWNER,
        f"--pwfile={secret}",
        "-A",
        "scram-sha-256",
        "-E",
        "UTF8",
        "-N",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=folder, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, **who
    )
    assert done.returncode == 0, done.stderr
    access = [
        "local all all reject",
        f"{'hostssl' if tls else 'host'} all reader all scram-sha-256",
        f"host all {OWNER} all scram-sha-256",
    ]
    (data / "pg_hba.conf").write_text("\n".join(access) + "\n")
    settings = [
        "listen_addresses=" + ("*" if host != "127.0.0.1" else host),
        f"port={port}",
        "unix_socket_directories=",
        "fsync=off",
        "shared_buffers=16MB",
    ]
    if tls is not None:
        settings += ["ssl=on", f"ssl_cert_file={folder / 'server.crt'}", f"ssl_key_file={folder / 'server.key'}"]
    command = [str(tools / "postgres"), "-D", str(data), *(w for s in settings for w in ("-c", s))]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, cwd=folder, env={"LC_ALL": "C"}, text=True, **who)
    server = Postgres(port, folder, process, host)
    try:
        _await(process)
        server.run("CREATE DATABASE traces", database="postgres")
        server.run(TABLE)
        server.run(f"CREATE ROLE reader LOGIN PASSWORD '{READER[1]}'")
        server.run("GRANT SELECT ON traces TO reader")
        yield server
    finally:
        process.send_signal(3)  # SIGQUIT: at once
        process.wait(30)
        shutil.rmtree(folder)


def _await(process: Any) -> None:
    """The server says when it is there; what it says after that is read and thrown away."""
    said = []
    for line in process.stderr:
        said.append(line)
        if "ready to accept connections" in line:
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return
    raise AssertionError("".join(said))
