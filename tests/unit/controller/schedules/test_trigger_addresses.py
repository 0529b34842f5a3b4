"""Which addresses triggers may ask."""

import socket

import pytest

from trainyard.controller.schedules.triggers.addresses import Rules


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "a loopback address"),
        ("127.9.9.9", "a loopback address"),
        ("::1", "a loopback address"),
        ("::ffff:127.0.0.1", "a loopback address"),
        ("64:ff9b::7f00:1", "a loopback address"),
        ("2002:7f00:1::1", "a loopback address"),
        ("0.0.0.0", "no address of a server"),
        ("0.1.2.3", "no address of a server"),
        ("::", "no address of a server"),
        ("169.254.1.1", "a link-local address"),
        ("169.254.169.254", "the metadata service of a cloud"),
        ("fd00:ec2::254", "the metadata service of a cloud"),
        ("100.100.100.200", "the metadata service of a cloud"),
        ("fe80::1%eth0", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("ff02::1", "a multicast address"),
        ("255.255.255.255", "a reserved address"),
        ("240.0.0.1", "a reserved address"),
        ("::7f00:1", "a reserved address"),
    ],
)
def test_what_is_always_refused(address: str, kind: str) -> None:
    assert str(Rules().refuse_address(address)).startswith(f"is {kind}, which triggers must not ask; name a Service")


@pytest.mark.parametrize(
    "address", ["10.96.0.10", "192.168.1.5", "93.184.216.34", "fd00::1", "2001:db8::1", "100.64.0.1"]
)
def test_services_and_the_world_are_asked_unless_an_installation_says_otherwise(address: str) -> None:
    assert Rules().refuse_address(address) is None
    denied = Rules(denied_networks=("10.0.0.0/8", "192.168.0.0/16", "93.0.0.0/8", "100.64.0.0/10", "::/0"))
    assert "which this installation does not let triggers ask" in str(denied.refuse_address(address))


def test_the_operators_own_address_is_refused_whichever_it_is() -> None:
    """The address that packets to the outside would carry; nothing is sent. A machine without one has only loopback."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
    except OSError:
        own = "127.0.0.1"
    said = str(Rules().refuse_address(own))
    assert "an address of the operator itself" in said or own.startswith("127.")
    assert "must not ask" in said


def test_a_denied_network_is_denied_inside_of_other_addresses_too() -> None:
    rules = Rules(denied_networks=("10.0.0.0/8",))
    assert "lies in 10.0.0.0/8" in str(rules.refuse_address("::ffff:10.0.0.1"))


@pytest.mark.parametrize(
    ("host", "refused"),
    [
        ("prometheus.monitoring.svc", False),
        ("Git.Example.org.", False),
        ("git.example.org.evil.net", True),
        ("x", True),
    ],
)
def test_hosts_by_name(host: str, refused: bool) -> None:
    rules = Rules(allowed_hosts=("*.monitoring.svc", "git.example.org"))
    assert (rules.refuse_host(host) is not None) is refused
    assert Rules().refuse_host(host) is None
