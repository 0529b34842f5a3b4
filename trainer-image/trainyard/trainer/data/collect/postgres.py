"""A PostgreSQL database: its address from a Secret, rows through a cursor of the server, one sentence for each fault.

pg8000 speaks to it: pure Python without a library of the system, so the same bytes work in every image. Nothing is written:
the transaction is read-only, and one snapshot for all rows. What the address holds is never told but for host and database.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pg8000.native
from pg8000.exceptions import DatabaseError, InterfaceError

from trainyard.api.conditions import Reason
from trainyard.trainer.data.collect.http import PAUSES, READ_TIMEOUT
from trainyard.trainer.data.sources import CONNECT_TIMEOUT
from trainyard.trainer.errors import UserError, invalid_data, source_unavailable
from trainyard.trainer.log import say

ADDRESS_KEY = "database-url"
SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg", "postgresql+psycopg2")
PORT = 5432
AT_ONCE = 200
"""Rows of one answer."""
STATEMENT_SECONDS = 600
TLS_MODES = ("disable", "prefer", "require", "verify-ca", "verify-full")
_REFUSED = {
    "28P01": ("the login is refused", "correct user and password in {key} of the Secret"),
    "28000": ("the login is refused", "correct user and password in {key} of the Secret, or let the user in (pg_hba.conf)"),
    "3D000": ("there is no such database", "correct the name at the end of {key} in the Secret"),
    "3F000": ("there is no such schema", "correct {field}.table"),
    "42P01": ("there is no such table", "correct {field}.table"),
    "42703": ("there is no such column", "correct {field}.idColumn, timeColumn or payloadColumn"),
    "42501": ("the user may not read it", "GRANT SELECT on the table to the user of {key}"),
    "42883": ("a column is not of the kind it should be", "payloadColumn has to be json or jsonb, and timeColumn a time"),
    "42846": ("a column is not of the kind it should be", "payloadColumn has to be json or jsonb, and timeColumn a time"),
    "22P02": ("a trace is no JSON", "payloadColumn has to be json or jsonb"),
    "57014": (f"the statement took more than {STATEMENT_SECONDS} s", "put an index on the time column, or narrow filters and limit"),
}  # fmt: skip
"""By SQLSTATE: what will not change by asking again, and the way out."""


@dataclass(frozen=True)
class Address:
    """Of a database. `str()` tells where it is, and nothing secret."""

    host: str
    port: int
    database: str
    user: str
    tls: str
    password: str = field(repr=False)

    def __str__(self) -> str:
        return f"postgresql://{self.host}:{self.port}/{self.database}"


@dataclass(frozen=True)
class Place:
    """For messages: `dataset NAME`, and the field of the manifest."""

    name: str
    field: str


def address_of(values: Mapping[str, str], place: Place) -> Address:
    """From the Secret's values. Raises UserError that shows nothing of them but host, port and database."""
    text = values.get(ADDRESS_KEY, "").strip()
    form = "postgresql://HOST:5432/DATABASE, with USER:PASSWORD@ before the host"
    if not text:
        raise _invalid(place, f"the Secret has no {ADDRESS_KEY}", f"put the database's address into it: {form}")
    try:
        parts = urlsplit(text)
        port = parts.port or PORT
        query = parse_qs(parts.query)
    except ValueError:
        raise _invalid(place, f"{ADDRESS_KEY} of the Secret is no address", f"write it as {form}") from None
    if parts.scheme not in SCHEMES or not parts.hostname:
        raise _invalid(
            place, f"{ADDRESS_KEY} of the Secret is no address of a PostgreSQL database", f"write it as {form}"
        )
    tls = (query.get("sslmode") or query.get("ssl") or ["verify-full" if "ca.crt path" in values else "prefer"])[-1]
    tls = {"true": "require", "false": "disable", "allow": "prefer"}.get(tls, tls)
    if tls not in TLS_MODES:
        raise _invalid(place, f"{ADDRESS_KEY} of the Secret has an unknown sslmode", f"one of {', '.join(TLS_MODES)}")
    user = unquote(parts.username or "") or values.get("username", "")
    password = unquote(parts.password or "") or values.get("password", "")
    database = unquote(parts.path.lstrip("/")) or user
    return Address(parts.hostname, port, database, user or "postgres", tls, password)


class Database:
    """One connection, read-only."""

    def __init__(self, address: Address, place: Place, *, ca: str | None = None, patient: bool = True) -> None:
        """Connects; while `patient`, tries again where the server is not there. Raises UserError."""
        self.address = address
        self._place = place
        self._ca = ca
        self._pauses = (*PAUSES, None) if patient else (None,)
        self._connection = self._connected()

    def close(self) -> None:
        """Whatever state the connection is in."""
        with suppress(InterfaceError, OSError):
            self._connection.close()

    def rows(self, statement: str, **values: Any) -> Iterator[list[Any]]:
        """The rows of a SELECT with `:name` for values, of one snapshot; some hundred are held at a time."""
        with self._told():
            self._connection.run("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            self._connection.run(f"DECLARE found NO SCROLL CURSOR FOR {statement}", **values)
        while True:
            with self._told():
                found = self._connection.run(f"FETCH FORWARD {AT_ONCE} FROM found")
            yield from found
            if len(found) < AT_ONCE:
                break
        with self._told():
            self._connection.run("COMMIT")

    def _connected(self) -> pg8000.native.Connection:
        for pause in self._pauses:
            try:
                with self._told():
                    connection = self._connect()
                    connection.run(f"SET statement_timeout = '{STATEMENT_SECONDS}s'")
                    return connection
            except UserError as error:
                if pause is None or error.reason is not Reason.SOURCE_UNAVAILABLE:
                    raise
                say(f"{error.message}; trying again")
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _connect(self) -> pg8000.native.Connection:
        at = self.address
        reached = socket.create_connection((at.host, at.port), CONNECT_TIMEOUT)
        reached.settimeout(READ_TIMEOUT + STATEMENT_SECONDS)
        return pg8000.native.Connection(
            at.user,
            host=at.host,
            database=at.database,
            password=at.password,
            ssl_context=self._tls(),
            sock=reached,
            application_name="trainyard",
        )

    def _tls(self) -> ssl.SSLContext | bool | None:
        match self.address.tls:
            case "disable":
                return False
            case "prefer":
                return None  # tries TLS, and goes on without where the server has none
            case "require":
                return True
        context = ssl.create_default_context(cafile=self._ca)
        context.check_hostname = self.address.tls == "verify-full"
        return context

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong inside as a UserError."""
        try:
            yield
        except DatabaseError as error:
            raise self._refused(error.args[0] if error.args and isinstance(error.args[0], dict) else {}) from error
        except (InterfaceError, OSError) as error:
            raise self._broken(error.__cause__ or error) from error

    def _refused(self, told: Mapping[str, str]) -> UserError:
        code, words = told.get("C", ""), told.get("M", "the server refuses")
        if code in _REFUSED:
            what, way_out = _REFUSED[code]
            return _invalid(
                self._place,
                f"{self.address}: {what}: {words}",
                way_out.format(key=ADDRESS_KEY, field=self._place.field),
            )
        if code[:2] in (
            "08",
            "53",
            "57",
            "58",
            "XX",
        ):  # connection, resources, shutdown, system, a fault of the server's own
            return self._unavailable(words)
        return _invalid(self._place, f"{self.address}: {words} ({code})", "look at the server's log")

    def _broken(self, cause: BaseException) -> UserError:
        match cause:
            case socket.gaierror():
                return _invalid(
                    self._place,
                    f"{self.address}: the host is unknown",
                    f"correct the host in {ADDRESS_KEY} of the Secret",
                )
            case ssl.SSLCertVerificationError():
                return _invalid(
                    self._place,
                    f"{self.address}: its certificate is not trusted: {cause.verify_message}",
                    "put the issuing authority into the Secret as ca.crt, or name the host as the certificate does",
                )
            case ssl.SSLError():
                return _invalid(
                    self._place, f"{self.address}: no TLS with this server: {cause.reason}", "check sslmode"
                )
            case InterfaceError() if "SSL" in str(cause):
                return _invalid(
                    self._place,
                    f"{self.address}: the server has no TLS, and sslmode={self.address.tls} asks for it",
                    f"switch TLS on in the server, or set sslmode=disable in {ADDRESS_KEY}",
                )
        return self._unavailable(str(cause) or type(cause).__name__)

    def _unavailable(self, words: str) -> UserError:
        return source_unavailable(
            f"{self._place.name}: {self._place.field} {self.address}: {words}",
            hint="check that the server is up and reachable from the run's namespace",
        )


def _invalid(place: Place, message: str, hint: str) -> UserError:
    return invalid_data(f"{place.name}: {place.field}: {message}", hint=hint)
