"""Which addresses triggers may ask, for whoever may write a schedule asks with the operator's own network.

Judged is the address that a connection is made to, after its name has been resolved and again at each redirect: a name can
lead anywhere, and somewhere else the next time.
"""

import socket
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

_METADATA = frozenset(
    map(ip_address, ("169.254.169.254", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"))
)
"""Where clouds hand a machine's own credentials to whoever asks from it; not all of them are link-local."""
_NAT64 = IPv6Network("64:ff9b::/96")


@dataclass(frozen=True)
class Rules:
    """What an installation allows and refuses, beside what is always refused."""

    allowed_hosts: tuple[str, ...] = ()
    """Names or addresses as they stand in a URL; `*` stands for any text. Empty: all."""
    denied_networks: tuple[str, ...] = ()
    allow_loopback: bool = False
    """For tests and development."""
    asker: str = "triggers"
    """Who asks, as the refusals call him."""

    def refuse_host(self, host: str) -> str | None:
        """Why this host must not be asked, if so."""
        name = host.lower().rstrip(".")
        if not self.allowed_hosts or any(fnmatchcase(name, wanted.lower()) for wanted in self.allowed_hosts):
            return None
        return (
            f"is not among the hosts that this installation lets {self.asker} ask; name another one, or have it added to "
            "TRAINYARD_TRIGGERS_ALLOWED_HOSTS"
        )

    def refuse_address(self, text: str) -> str | None:
        """Why nothing must be sent to this address, if so."""
        address = _plain(ip_address(text.partition("%")[0]))
        if not (address.is_loopback and self.allow_loopback) and (kind := _kind(address)) is not None:
            return (
                f"is {kind}, which {self.asker} must not ask; name a Service, or a server outside of the operator's pod"
            )
        network = next((n for n in map(ip_network, self.denied_networks) if address in n), None)
        if network is None:
            return None
        return (
            f"lies in {network}, which this installation does not let {self.asker} ask; name another server, or have "
            "TRAINYARD_TRIGGERS_DENIED_NETWORKS changed"
        )


def _kind(address: Address) -> str | None:
    if address in _METADATA:
        return "the metadata service of a cloud"
    if address.is_loopback:
        return "a loopback address"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "a multicast address"
    if address.is_unspecified or address in IPv4Network("0.0.0.0/8"):
        return "no address of a server"
    if address.is_reserved:
        return "a reserved address"
    return "an address of the operator itself" if _is_ours(address) else None


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 address carries, if it does; it is where packets may end up."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None) or address


def _is_ours(address: Address) -> bool:
    """Whether packets to it would not leave this network namespace: they would carry it as their source too."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), 9))  # sends nothing
            return ip_address(probe.getsockname()[0].partition("%")[0]) == address
    except OSError:
        return False
