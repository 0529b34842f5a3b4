"""What each part of the cluster is started with: command lines and configuration files, computed and not yet applied.

Settings follow a normal cluster's defaults (admission plugins, RBAC, quotas, request fairness, client rate limits), so
that what works here works elsewhere. Where a value differs, the line says why.
"""

from __future__ import annotations

import json
from pathlib import Path

from cluster.build import key_file
from cluster.processes import Program
from cluster.settings import (
    API_PORT,
    DNS_HEALTH_PORT,
    DNS_READY_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    FORGE,
    HOST_ADDRESS,
    NODES,
    PAUSE_IMAGE,
    POD_NETWORK,
    REGISTRY_PORT,
    SERVICE_NETWORK,
    Node,
    Paths,
)

ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"
ETCD_PEER_URL = f"http://127.0.0.1:{ETCD_PEER_PORT}"


def _program(paths: Paths, name: str, *flags: str, inputs: tuple[Path, ...] = ()) -> Program:
    """A component of kubeall; a new binary is a reason to restart it, like a changed flag."""
    return Program(name, (str(paths.bin / name), *flags), (key_file(paths.bin / "kubeall"), *inputs))


def etcd(paths: Paths) -> Program:
    return _program(
        paths,
        "etcd",
        f"--data-dir={paths.run}/etcd",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        f"--listen-peer-urls={ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
        f"--initial-cluster=default={ETCD_PEER_URL}",
        "--unsafe-no-fsync",  # a test cluster may lose its state with the machine; fsync would slow every write
        "--log-level=warn",
    )


def api_server(paths: Paths) -> Program:
    pki = paths.pki
    return _program(
        paths,
        "kube-apiserver",
        f"--etcd-servers={ETCD_URL}",
        f"--secure-port={API_PORT}",
        f"--advertise-address={HOST_ADDRESS}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={pki}/sa.pub",
        f"--service-account-signing-key-file={pki}/sa.key",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/kubelet-client.crt",
        f"--kubelet-client-key={pki}/kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={pki}/ca.crt",
        "--requestheader-allowed-names=front-proxy",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki}/front-proxy.crt",
        f"--proxy-client-key-file={pki}/front-proxy.key",
        inputs=(pki / "apiserver.crt",),
    )


def controllers(paths: Paths) -> Program:
    pki = paths.pki
    return _program(
        paths,
        "kube-controller-manager",
        f"--kubeconfig={pki}/controller-manager.kubeconfig",
        f"--service-account-private-key-file={pki}/sa.key",
        f"--root-ca-file={pki}/ca.crt",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--use-service-account-credentials=true",
        "--leader-elect=false",  # there is one; an election would only add writes and a delay after a restart
        "--bind-address=127.0.0.1",
    )


def scheduler(paths: Paths) -> Program:
    return _program(
        paths,
        "kube-scheduler",
        f"--kubeconfig={paths.pki}/scheduler.kubeconfig",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    )


def provisioner(paths: Paths) -> Program:
    return _program(paths, "provisioner", f"--kubeconfig={paths.pki}/provisioner.kubeconfig", f"--root={paths.volumes}")


def proxy(paths: Paths) -> Program:
    """One proxy serves both nodes, since they share the machine's network."""
    return _program(
        paths,
        "kube-proxy",
        f"--kubeconfig={paths.pki}/proxy.kubeconfig",
        "--proxy-mode=nftables",
        f"--cluster-cidr={POD_NETWORK}",
        f"--hostname-override={FORGE.name}",
        "--conntrack-max-per-core=0",  # leave the machine's own limits as they are
        "--conntrack-tcp-timeout-established=0s",
        "--conntrack-tcp-timeout-close-wait=0s",
    )


def dns(paths: Paths) -> Program:
    corefile = paths.config / "Corefile"
    return _program(paths, "coredns", f"-conf={corefile}", inputs=(corefile,))


def registry(paths: Paths) -> Program:
    config = paths.config / "registry.yaml"
    return Program("registry", ("docker-registry", "serve", str(config)), (config,))


def containerd(paths: Paths, node: Node) -> Program:
    config = paths.config / f"containerd-{node.name}.toml"
    return Program(f"containerd-{node.name}", ("containerd", "--config", str(config)), (config,))


def kubelet(paths: Paths, node: Node) -> Program:
    config = paths.config / f"kubelet-{node.name}.json"
    flags = (
        f"--kubeconfig={paths.pki}/kubelet-{node.name}.kubeconfig",
        f"--config={config}",
        f"--hostname-override={node.name}",
        f"--node-ip={node.address}",
    )
    inputs = (key_file(paths.bin / "kubeall"), config)
    return Program(f"kubelet-{node.name}", (str(paths.bin / "kubelet"), *flags), inputs)


def configuration(paths: Paths, *, cni_folder: Path) -> dict[Path, str]:
    """All configuration files, path to content."""
    files = {paths.config / "Corefile": corefile(paths), paths.config / "registry.yaml": registry_config(paths)}
    for node in NODES:
        files[paths.config / f"containerd-{node.name}.toml"] = containerd_config(paths, node, cni_folder)
        files[paths.config / f"kubelet-{node.name}.json"] = kubelet_config(paths, node)
        files[paths.config / f"cni-{node.name}" / "10-pods.conflist"] = cni_config(paths, node)
    return files


def corefile(paths: Paths) -> str:
    return f""".:53 {{
  bind {HOST_ADDRESS}
  errors
  health {HOST_ADDRESS}:{DNS_HEALTH_PORT}
  ready {HOST_ADDRESS}:{DNS_READY_PORT}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {paths.pki}/dns.kubeconfig
  }}
  forward . /etc/resolv.conf
  cache 5
}}
"""


def registry_config(paths: Paths) -> str:
    document = {
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(paths.registry)}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{REGISTRY_PORT}"},
    }
    return json.dumps(document, indent=1) + "\n"


def containerd_config(paths: Paths, node: Node, cni_folder: Path) -> str:
    """Shim sockets and folders at fixed places are private through the node's mount namespace."""
    return f"""version = 2
root = "{paths.images_of(node)}"
state = "{paths.node(node)}/containerd"

[grpc]
  address = "{paths.containerd_socket(node)}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  # Without CAP_SYS_RESOURCE (inside many containers) no process may lower its OOM score, and every pod would fail.
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{cni_folder}"
  conf_dir = "{paths.config}/cni-{node.name}"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
"""


def cni_config(paths: Paths, node: Node) -> str:
    """Pods hang on routed links of their own, so Services work without bridge netfilter in the kernel."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pod_network}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{paths.node(node)}/addresses",
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    document = {"cniVersion": "0.4.0", "name": f"trainyard-{node.name}", "plugins": [plugin]}
    return json.dumps(document, indent=1) + "\n"


def kubelet_config(paths: Paths, node: Node) -> str:
    pki = paths.pki
    taints = [{"key": "dedicated", "value": node.taint, "effect": "NoSchedule"}] if node.taint else []
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": node.address,
        "port": node.kubelet_port,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": node.health_port,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{pki}/kubelet-{node.name}.crt",
        "tlsPrivateKeyFile": f"{pki}/kubelet-{node.name}.key",
        "containerRuntimeEndpoint": f"unix://{paths.containerd_socket(node)}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        # Its iptables chains serve the old proxy mode only, and would stay on the machine after `down`.
        "makeIPTablesUtilChains": False,
        "failSwapOn": False,
        "registerWithTaints": taints,
        "clusterDNS": [HOST_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        # A developer's disk is often nearly full, and two nodes count the same disk: evict only in real need.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }
    return json.dumps(document, indent=1) + "\n"
