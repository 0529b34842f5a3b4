"""Requests of all kinds, most of them odd, from a seed: bytes as somebody might send them to the receiver."""

import gzip
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from tests.unit.controller.reports.served import TOKENS

RUNS = [(("team", f"run-{n}"), f"0c5b7a52-6a51-4f9f-9f5e-{n:012d}") for n in range(20)]
TIME = "2026-01-01T00:00:00Z"


def odd_requests(seed: int) -> Iterator[tuple[str, bytes]]:
    """Without an end: the kind of the request, and the request."""
    random = Random(seed)
    kinds = list(KINDS.items())
    while True:
        name, make = random.choice(kinds)
        yield name, make(random)


def _record(random: Random, uid: str) -> dict[str, Any]:
    return {
        "version": 1,
        "runUid": uid,
        "step": random.choice(["prepare", "train", "train-warm", "evaluate", "validate"]),
        "attempt": random.randint(1, 3),
        "sequence": random.randint(0, 10**6),
        "time": TIME,
        "phase": random.choice(["load", "train", "save"]),
        "stepNumber": random.randint(0, 1000),
        "totalSteps": 1000,
        "percentage": random.uniform(0, 100),
        "metrics": {"loss": random.uniform(0, 9), f"m{random.randint(0, 99)}": 1.0},
        "checkpoint": {"step": 25, "path": "alpha/step-00000025", "time": TIME, "bytes": 5},
        "effective": {"device": "cpu", "threads": 2},
    }


def _kubeflow(random: Random) -> dict[str, Any]:
    metrics = [{"name": f"m{random.randint(0, 99)}", "value": str(random.uniform(-9, 9))}]
    return {"trainerStatus": {"lastUpdatedTime": TIME, "progressPercentage": 5, "metrics": metrics}}


def _junk(random: Random, *, depth: int = 3) -> Any:
    """Any value that JSON can carry, with a taste for the ends of what is allowed."""
    text = "".join(
        chr(random.choice([random.randrange(0, 0x110000), random.randrange(0, 128), 0xD800])) for _ in range(9)
    )
    kinds: list[Callable[[], Any]] = [
        lambda: random.choice([None, True, False, "", 0, -1, 1e999, float("nan"), -0.0, 2**53, 2**53 + 1, 10**40]),
        lambda: random.randint(-(10 ** random.randint(1, 600)), 10 ** random.randint(1, 600)),
        lambda: random.uniform(-1, 1) * 10.0 ** random.randint(-300, 300),
        lambda: text * random.choice([1, 10, 1000]),
        lambda: random.choice(["yesterday", "0001-01-01T00:00:00Z", "\x1b[31m", "a\nb", "../..", "/etc", "9" * 5000]),
    ]
    if depth:
        kinds.append(lambda: [_junk(random, depth=depth - 1) for _ in range(random.randint(0, 5))])
        kinds.append(
            lambda: {text[:3] + str(n): _junk(random, depth=depth - 1) for n in range(random.choice([1, 3, 70]))}
        )
    return random.choice(kinds)()


def _mutated(random: Random, value: dict[str, Any]) -> dict[str, Any]:
    for _ in range(random.randint(1, 3)):
        place = value
        while True:
            key = random.choice(list(place)) if place else "a"
            if isinstance(place.get(key), dict) and random.random() < 0.5:
                place = place[key]
                continue
            break
        if random.random() < 0.2:
            place.pop(key, None)
        else:
            place[key] = _junk(random)
    return value


def _noise(random: Random, longest: int = 2000) -> bytes:
    return random.randbytes(random.randint(0, longest))


def _request(
    path: str,
    body: bytes,
    *,
    token: bytes | str | None,
    method: str = "POST",
    headers: tuple[bytes, ...] = (),
    length: int | None = None,
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: receiver", *headers]
    if token is not None:
        lines.append(b"Authorization: Bearer " + (token.encode() if isinstance(token, str) else token))
    if length is None or length >= 0:
        lines.append(b"Content-Length: %d" % (len(body) if length is None else length))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _path(random: Random) -> tuple[str, str, str, bool]:
    """An address, the token that belongs to it, its uid, and whether it takes our own format."""
    key, uid = random.choice(RUNS)
    token = TOKENS.for_run(key, uid)
    run = "/".join(key)
    if random.random() < 0.25:
        return f"/v1/kubeflow/{run}/{uid}?step=train&attempt={random.randint(1, 3)}", token, uid, False
    return (f"/v1/runs/{run}/progress" if random.random() < 0.2 else f"/v1/runs/{run}/{uid}/progress"), token, uid, True


def _told(random: Random, uid: str, *, own: bool) -> dict[str, Any]:
    return _record(random, uid) if own else _kubeflow(random)


def honest(random: Random) -> bytes:
    path, token, uid, own = _path(random)
    return _request(path, json.dumps(_told(random, uid, own=own)).encode(), token=token)


def _odd_record(random: Random) -> bytes:
    path, token, uid, own = _path(random)
    return _request(path, json.dumps(_mutated(random, _told(random, uid, own=own))).encode(), token=token)


def _odd_body(random: Random) -> bytes:
    path, token, *_ = _path(random)
    body = random.choice(
        [
            _noise(random),
            b"[" * random.randint(1, 60_000),
            b'{"a":' * random.randint(1, 10_000),
            b"9" * random.randint(1, 50_000),
            b'"\\ud800"',
            json.dumps(_junk(random)).encode(errors="surrogatepass"),
            b"\xff\xfe" + b"{}",
            b"",
        ]
    )
    return _request(path, body, token=token)


def _broken_off(random: Random) -> bytes:
    whole = honest(random)
    return whole[: random.randint(0, len(whole) - 1)]


def _odd_token(random: Random) -> bytes:
    path, token, uid, own = _path(random)
    other_key, other_uid = random.choice(RUNS)
    others = TOKENS.for_run(other_key, other_uid + "0")
    noise = _noise(random, 60).replace(b"\r", b"").replace(b"\n", b"")
    presented: bytes | str | None = random.choice(
        [None, b"", b"\xff", b"\xff" * 43, noise, token[:-1], token + "x", "x" * 1900, others, "\u00fc" * 9]
    )
    return _request(path, json.dumps(_told(random, uid, own=own)).encode(), token=presented)


def _odd_address(random: Random) -> bytes:
    _, token, uid, own = _path(random)
    parts = ["team", "run-1", uid, "%ff", "%00", "%2F", "a%0d%0ab", "..", "x" * 500, "%ud800", "\u00fc", ""]

    def part() -> str:
        return random.choice(parts)

    path = random.choice(
        [
            f"/v1/runs/{part()}/{part()}/{part()}/progress",
            f"/v1/runs/{part()}/{part()}/progress",
            f"/v1/kubeflow/{part()}/{part()}/{part()}?step={part()}&attempt={part()}",
            f"/v1/kubeflow/team/run-1/{RUNS[1][1]}?attempt={'9' * random.randint(1, 1500)}&step=train-{part()}",
            f"/{part()}?{part()}={part()}",
            "*",
            "http://elsewhere/" + part(),
        ]
    )
    token = random.choice([token, TOKENS.for_run(*RUNS[1])])
    return _request(path, json.dumps(_told(random, uid, own=own)).encode(), token=token)


def _odd_header(random: Random) -> bytes:
    path, token, uid, own = _path(random)
    body = json.dumps(_told(random, uid, own=own)).encode()
    packed = gzip.compress(random.choice([body, b" " * 300_000]))
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[n : n + 50]), body[n : n + 50]) for n in range(0, len(body), 50))
    return random.choice(
        [
            _request(path, packed, token=token, headers=(b"Content-Encoding: gzip",)),
            _request(path, body, token=token, headers=(b"Content-Encoding: gzip",)),
            _request(path, body, token=token, headers=(b"Content-Encoding: br",)),
            _request(path, chunks + b"0\r\n\r\n", token=token, headers=(b"Transfer-Encoding: chunked",), length=-1),
            _request(path, chunks + b"zz\r\n", token=token, headers=(b"Transfer-Encoding: chunked",), length=-1),
            _request(path, body, token=token, headers=(b"Transfer-Encoding: chunked",)),
            _request(path, body, token=token, headers=(b"Expect: 100-continue",)),
            _request(path, body, token=token, headers=(b"Expect: " + _noise(random, 9).hex().encode(),)),
            _request(path, body, token=token, headers=(b"Upgrade: websocket", b"Connection: Upgrade")),
            _request(path, body, token=token, headers=tuple(b"X-%d: y" % n for n in range(random.randint(1, 60)))),
            _request(path, body, token=token, headers=(b"X: " + b"y" * random.randint(1, 5000),)),
            _request(path, body, token=token, headers=(b"X: " + _noise(random, 50),)),
            _request(path, body, token=token, headers=(b"Content-Length: 1",)),
            _request(path, body, token=token, length=random.choice([0, 1, 10**30])),
            _request(path, body, token=token, headers=(b"Content-Type: text/html; charset=" + b"x" * 50,)),
            _request(path, body, token=token).replace(
                b"HTTP/1.1", random.choice([b"HTTP/1.0", b"HTTP/9.9", b"XTP"]), 1
            ),
            _request(
                path,
                body,
                token=token,
                method=random.choice(["GET", "PUT", "OPTIONS", "CONNECT", "HEAD", "FOO", "pri"]),
            ),
        ]
    )


def _too_large(random: Random) -> bytes:
    path, token, uid, own = _path(random)
    told = _told(random, uid, own=own) | {"padding": "x" * random.randint(60_000, 300_000)}
    return _request(path, json.dumps(told).encode(), token=random.choice([token, "wrong"]))


def _garbage(random: Random) -> bytes:
    whole = bytearray(honest(random))
    for _ in range(random.randint(1, 20)):
        whole[random.randrange(len(whole))] = random.randrange(256)
    return random.choice(
        [bytes(whole), _noise(random), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01" + _noise(random)]
    )


def _several(random: Random) -> bytes:
    return b"".join(random.choice([honest, _odd_token, _garbage])(random) for _ in range(random.randint(2, 5)))


KINDS: dict[str, Callable[[Random], bytes]] = {
    "honest": honest,
    "odd record": _odd_record,
    "odd body": _odd_body,
    "broken off": _broken_off,
    "odd token": _odd_token,
    "odd address": _odd_address,
    "odd header": _odd_header,
    "too large": _too_large,
    "garbage": _garbage,
    "several": _several,
}
