"""The wall around the process of a look: no connection leaves it but to where triggers may ask.

It stands where Python opens connections, so it holds for every library alike (git, HTTP, TLS) and for whatever they follow:
the address judged is the very one that is connected to. It cannot be taken away again for the life of the process.
"""

import socket
import sys
from typing import Any

from trainyard.controller.schedules.triggers.addresses import Rules


class Refused(Exception):
    """This must not be asked; the message is a sentence about host or address."""


class Wall:
    """Judges connections."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._proxies: set[tuple[str, int]] = set()
        self._probing = False

    def stand(self) -> None:
        """From now on."""
        sys.addaudithook(self._audit)

    def permit_proxy(self, host: str, port: int) -> None:
        """Where the installation's own environment sends requests is not for triggers to choose, so it is not judged."""
        for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            self._proxies.add((str(found[4][0]), port))

    def judge_host(self, host: str) -> None:
        """Raises `Refused`."""
        if (why := self._rules.refuse_host(host)) is not None:
            raise Refused(f"{host} {why}")

    def judge_behind_proxy(self, host: str, port: int) -> None:
        """The proxy resolves the name, so this is no more than what can be known here. Raises `Refused`."""
        try:
            found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except OSError:
            return
        for address in found:
            self._judge(address)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or self._probing:
            return
        opened, target = arguments
        if opened.family not in (socket.AF_INET, socket.AF_INET6):
            raise Refused("a source is a server, and nothing of this machine")
        if (target[0], target[1]) not in self._proxies:
            self._judge(target[0])

    def _judge(self, address: str) -> None:
        self._probing = True
        try:
            why = self._rules.refuse_address(address)
        except ValueError:
            why = "is a name, which has to be resolved first"
        finally:
            self._probing = False
        if why is not None:
            raise Refused(f"{address} {why}")
