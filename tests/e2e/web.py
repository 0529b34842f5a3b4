"""A web server on this machine that pods can reach: data, refusals and failures as a test wants them."""

import base64
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = "10.91.0.1"
"""The machine's address on the local cluster's network; nothing outside the machine can reach it."""
USER, PASSWORD = "reader", "correct horse"


@dataclass
class Web:
    """Base URL and what was asked for."""

    url: str
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Web]:
    """Serve the files under their names.

    Names below `private/` need the user and password; `/status/<code>` answers with that code.
    """
    web = Web("")
    allowed = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.requests.append(self.path)
            name = self.path.lstrip("/")
            if name.startswith("status/"):
                self.answer(int(name.removeprefix("status/").split("/")[0]), b"as you wish")
            elif name.startswith("private/") and self.headers.get("Authorization") != allowed:
                self.answer(401, b"who are you?")
            elif name in files:
                self.answer(200, files[name])
            else:
                self.answer(404, b"no such file")

        do_HEAD = do_GET

        def answer(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    server = ThreadingHTTPServer((ADDRESS, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    web.url = f"http://{ADDRESS}:{server.server_address[1]}"
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
