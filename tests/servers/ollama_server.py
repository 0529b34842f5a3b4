"""Ollama, built from its Go module at first use.

The published module leaves out folders called `vendor`, and with them three C++ headers: two are Debian's, unpacked and not
installed, the third (audio files) is a stand-in that refuses everything.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.ports import free_port
from tests.servers.restartable import KEPT, Server

MODULE = Path(__file__).parent / "ollama"
HEADERS = ("nlohmann-json3-dev", "libstb-dev")


def ollama_program() -> Path:
    """The program, built when its go.sum changed."""
    return _built("ollama", "github.com/ollama/ollama")


def quantizer_program() -> Path:
    """llama.cpp's own quantizer, from the copy of it that Ollama is built with; of the same objects, so it takes a link."""
    return _built("quantizer", "./quantizer")


def _built(name: str, package: str) -> Path:
    place = KEPT / "ollama"
    binary, note = place / name, place / ("go.sum" if name == "ollama" else f"{name}.sum")
    wanted = (MODULE / "go.sum").read_text()
    if not binary.exists() or not note.exists() or note.read_text() != wanted:
        include = _headers(place / "headers")
        fast = "-O2 -mavx2 -mfma -mf16c"
        flags = {
            "CGO_CFLAGS": fast,
            "CGO_CXXFLAGS": f"{fast} -w -I{MODULE / 'include'} -I{include} -I{include / 'stb'}",
        }
        words = ["-mod=readonly", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", str(binary)]
        _run(["nice", "go", "build", *words, package], MODULE, flags)
        note.write_text(wanted)
    return binary


def _headers(place: Path) -> Path:
    if not (place / "usr/include/stb").exists():
        downloads = place / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        downloads.chmod(0o777)  # apt downloads as a user of its own
        _run(["apt-get", "download", "-qq", *HEADERS], downloads)
        for package in downloads.glob("*.deb"):
            _run(["dpkg-deb", "-x", str(package), str(place)], place)
    return place / "usr/include"


def _run(command: list[str], folder: Path, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {(done.stderr or done.stdout)[-2000:]}"


@contextmanager
def ollama(folder: Path, *, host: str = "127.0.0.1") -> Iterator[Server]:
    """A server with its models below `folder`."""
    port = free_port()
    server = Server(
        [str(ollama_program()), "serve"],
        url=f"http://{host}:{port}",
        health="/api/version",
        log=folder / "log",
        env={"OLLAMA_HOST": f"{host}:{port}", "OLLAMA_MODELS": str(folder / "models"), "HOME": str(folder)},
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()
