"""A web server on this machine that pods can reach: data, refusals and failures as a test wants them."""

import base64
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.webserver import Asked, Reply, Web, web

ADDRESS = "10.91.0.1"
"""The machine's address on the local cluster's network; nothing outside the machine can reach it."""
USER, PASSWORD = "reader", "correct horse"


@contextmanager
def serving(files: Mapping[str, bytes]) -> Iterator[Web]:
    """Serve the files under their names.

    Names below `private/` need the user and password; `/status/<code>` answers with that code.
    """
    allowed = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    def answer(asked: Asked) -> Reply:
        name = asked.target.lstrip("/")
        if name.startswith("status/"):
            return Reply(b"as you wish", int(name.removeprefix("status/").split("/")[0]))
        if name.startswith("private/") and asked.authorization != allowed:
            return Reply(b"who are you?", 401)
        return Reply(files[name]) if name in files else Reply(b"no such file", 404)

    with web(answer, host=ADDRESS) as server:
        yield server
