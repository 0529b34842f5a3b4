"""What the parts are started with: two nodes that do not get in each other's way, and a normal cluster's defaults."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

from cluster import components, health, settings
from cluster.settings import ARCANINE, FORGE, NODES, Paths


def test_nodes_share_no_port_address_network_or_folder(paths: Paths) -> None:
    for attribute in ("address", "pod_network", "kubelet_port", "health_port", "cgroup", "name"):
        assert len({getattr(node, attribute) for node in NODES}) == len(NODES), attribute
    assert len({paths.containerd_socket(node) for node in NODES}) == len(NODES)
    assert len({paths.images_of(node) for node in NODES}) == len(NODES)


def test_all_pod_networks_lie_in_the_cluster_network_and_no_node_address_in_them() -> None:
    whole = ipaddress.ip_network(settings.POD_NETWORK)
    pods = [ipaddress.ip_network(node.pod_network) for node in NODES]
    assert all(network.subnet_of(whole) for network in pods)  # type: ignore[arg-type]
    taken = [ipaddress.ip_address(a) for a in (settings.HOST_ADDRESS, *(node.address for node in NODES))]
    assert not any(address in network for address in taken for network in pods)
    assert not ipaddress.ip_network(settings.SERVICE_NETWORK).overlaps(whole)
    assert ipaddress.ip_address(settings.SERVICE_OF_API) in ipaddress.ip_network(settings.SERVICE_NETWORK)


def test_only_arcanine_is_tainted(paths: Paths) -> None:
    forge = json.loads(components.kubelet_config(paths, FORGE))
    arcanine = json.loads(components.kubelet_config(paths, ARCANINE))
    assert forge["registerWithTaints"] == []
    assert arcanine["registerWithTaints"] == [{"key": "dedicated", "value": "arcanine", "effect": "NoSchedule"}]
    assert (FORGE.gpus, ARCANINE.gpus) == (0, 1)


def test_every_configuration_file_lies_in_the_state_folder(paths: Paths) -> None:
    files = components.configuration(paths, cni_folder=Path("/cni"))
    assert all(path.is_relative_to(paths.config) for path in files)
    for path, text in files.items():
        if path.suffix in (".json", ".conflist"):
            json.loads(text)


def test_pods_ask_the_dns_server_where_it_listens(paths: Paths) -> None:
    assert f"bind {settings.HOST_ADDRESS}\n" in components.corefile(paths)
    assert json.loads(components.kubelet_config(paths, FORGE))["clusterDNS"] == [settings.HOST_ADDRESS]


def test_default_admission_and_client_limits_are_left_alone(paths: Paths) -> None:
    commands = [components.api_server(paths), components.controllers(paths), components.scheduler(paths)]
    flags = " ".join(word for program in commands for word in program.command)
    assert "--disable-admission-plugins" not in flags
    assert "--enable-priority-and-fairness" not in flags
    assert "qps" not in flags
    assert "--authorization-mode=Node,RBAC" in flags


def test_etcd_and_the_registry_listen_on_this_machine_only(paths: Paths) -> None:
    listening = [word for word in components.etcd(paths).command if "listen" in word]
    assert listening
    assert all("//127.0.0.1:" in word for word in listening)
    assert json.loads(components.registry_config(paths))["http"]["addr"].startswith("127.0.0.1:")


def test_programs_have_names_of_their_own(paths: Paths) -> None:
    paths.bin.mkdir()
    names = [program.name for program in health.programs(paths)]
    assert len(names) == len(set(names)) == 14
    assert set(health.ENDPOINTS) <= set(names)
