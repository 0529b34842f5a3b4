"""What the driver reads from the machine it runs on."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import api, build, builder, distribution, kwok, local, nodes, packages, system
from cluster.errors import ClusterError
from cluster.settings import KUBERNETES_VERSION, SOURCES, Paths

DEB822 = """Types: deb
# http://snapshot.example/archive
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates

Types: deb
URIs: http://mirror.example/debian-security
"""


@pytest.mark.parametrize(
    ("texts", "mirror"),
    [
        ([DEB822], "http://mirror.example/debian"),
        (["deb http://one.example/debian bookworm main\n"], "http://one.example/debian"),
        (
            ["deb [signed-by=/k.gpg arch=amd64] https://two.example/debian bookworm main\n"],
            "https://two.example/debian",
        ),
        (["# deb http://no.example/debian x main\ndeb http://s.example/debian-security b main\n"], None),
        ([], None),
    ],
)
def test_the_mirror_is_the_one_that_apt_uses(texts: list[str], mirror: str | None) -> None:
    assert distribution.debian_mirror(texts) == mirror


def test_release() -> None:
    assert (
        distribution.parse_release('ID=debian\nVERSION_CODENAME=bookworm\nNAME="Debian GNU"\n')["NAME"] == "Debian GNU"
    )


def test_only_packages_of_missing_tools_are_installed() -> None:
    assert packages.missing_packages(lambda tool: True, has_cni=True) == []
    assert packages.missing_packages(lambda tool: tool != "gcc", has_cni=False) == [
        "gcc",
        "libc6-dev",
        "containernetworking-plugins",
    ]


def test_pip_settings_from_the_environment_win_over_files() -> None:
    printed = (
        "global.index-url='https://a.example/simple'\n:env:.index-url='https://b.example/simple'\nfreeze.timeout='9'\n"
    )
    assert builder.parse_pip_config(printed) == {"index-url": "https://b.example/simple"}


def test_a_build_gets_the_index_but_no_folder_of_the_machine() -> None:
    pip = {"index-url": "https://a.example/simple", "find-links": "/opt/wheels https://l.example/", "timeout": "60"}
    files = builder.client_settings(pip, {})
    assert "index-url = https://a.example/simple\n" in files["pip/pip.conf"]
    assert "find-links = https://l.example/\n" in files["pip/pip.conf"]
    assert "/opt/wheels" not in "".join(files.values())
    assert files["uv/uv.toml"] == 'native-tls = true\nindex-url = "https://a.example/simple"\n'


def test_uv_follows_its_own_variables_first() -> None:
    environment = {"UV_INDEX_URL": "https://u.example", "UV_EXTRA_INDEX_URL": "https://e.example https://f.example"}
    text = builder.client_settings({"index-url": "https://a.example"}, environment)["uv/uv.toml"]
    assert 'index-url = "https://u.example"\n' in text
    assert 'extra-index-url = ["https://e.example", "https://f.example"]\n' in text


def test_a_source_key_depends_on_names_contents_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "a.go"
    file.write_text("x")
    first = build.source_key([file])
    assert build.source_key([file], extra="-s") != first
    renamed = file.rename(tmp_path / "b.go")
    assert build.source_key([renamed]) != first


def test_programs_say_the_version_that_go_mod_pins() -> None:
    pinned = (SOURCES / "kubeall" / "go.mod").read_text()
    assert f"k8s.io/kubernetes {KUBERNETES_VERSION}\n" in pinned
    assert "-X k8s.io/component-base/version.gitVersion=v1.35.4" in build.linker_flags("v1.35.4")
    assert "-X k8s.io/client-go/pkg/version.gitMinor=35" in build.linker_flags("v1.35.4")


def test_writable_cgroup_hierarchies_of_both_versions() -> None:
    mounts = (
        "cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0\n"
        "cgroup /sys/fs/cgroup/cpu cgroup ro,relatime,cpu 0 0\n"
        "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
        "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
    )
    assert system.cgroup_mounts(mounts) == [Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified")]


def test_the_firewall_keeps_the_api_server_to_machine_and_pods() -> None:
    rules = system.firewall()
    assert 'iifname "lo" accept' in rules
    assert "ip saddr != 10.91.0.0/16 tcp dport 6443 drop" in rules


def node(status: str, heartbeat: str) -> dict[str, object]:
    return {"status": {"conditions": [{"type": "Ready", "status": status, "lastHeartbeatTime": heartbeat}]}}


def test_a_node_is_ready_only_by_the_word_of_its_present_kubelet() -> None:
    noon = "2026-01-01T12:00:00Z"
    assert api.node_is_ready(node("True", noon), since=1767268800)
    assert not api.node_is_ready(node("True", noon), since=1767268801)
    assert not api.node_is_ready(node("Unknown", noon))
    assert not api.node_is_ready({"status": {}})


def test_real_pods_do_not_land_on_fake_nodes() -> None:
    fake = kwok.fake_node(3)
    assert fake["metadata"]["name"] == fake["metadata"]["labels"]["kubernetes.io/hostname"] == "fake-3"
    assert fake["spec"]["taints"][0]["effect"] == "NoSchedule"


def test_a_node_notices_that_its_own_folders_are_gone() -> None:
    line = "{} 30 254:0 /state{} {} rw,relatime shared:1 - ext4 /dev/vda rw"
    whole = "\n".join(line.format(i, place, place) for i, place in enumerate(nodes.PRIVATE_FOLDERS))
    assert nodes.missing_mounts(whole) == []
    without_first = "\n".join(whole.splitlines()[1:])
    assert nodes.missing_mounts(without_first) == [nodes.PRIVATE_FOLDERS[0]]
    below = line.format(9, "/x", f"{nodes.PRIVATE_FOLDERS[0]}/pods/1/volumes/secret")
    assert nodes.missing_mounts(f"{without_first}\n{below}") == [nodes.PRIVATE_FOLDERS[0]]


@pytest.mark.parametrize(
    ("folder_exists", "process_lives", "refused"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_only_an_abandoned_cluster_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder_exists: bool, process_lives: bool, refused: bool
) -> None:
    other = tmp_path / "other" / ".cluster"
    if folder_exists:
        other.mkdir(parents=True)
    monkeypatch.setattr(system, "owner", lambda: other)
    words = [str(other / "bin" / "kubeall"), "etcd"]
    monkeypatch.setattr(
        system.processes, "matching", lambda wanted: [(1, 1)] if process_lives and wanted(words) else []
    )
    if refused:
        with pytest.raises(ClusterError, match="take it down first"):
            system.check_owner(Paths(tmp_path / "ours"))
    else:
        system.check_owner(Paths(tmp_path / "ours"))


def test_a_folder_too_deep_for_sockets_is_refused() -> None:
    local.check_length(Paths(Path("/home/somebody/src/trainyard/.cluster")))
    deep = Path("/home/somebody", "a-folder" * 10)
    with pytest.raises(ClusterError, match=r"and 104 are allowed: /home/.*set TRAINYARD_CLUSTER_DIR"):
        local.check_length(Paths(deep))
