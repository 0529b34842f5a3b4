"""The cluster's certificates and kubeconfigs, made with openssl.

One authority signs everything. Keys are on the P-256 curve, which takes milliseconds where RSA takes seconds.
"""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ClusterError
from cluster.settings import API_PORT, HOST_ADDRESS, NODES, SERVICE_OF_API, Paths

CONTEXT = "trainyard"
SERVER = f"https://127.0.0.1:{API_PORT}"
YEARS = 10


@dataclass(frozen=True)
class Identity:
    """A certificate: common name (the user), organisation (the group), alternative names."""

    file: str
    user: str
    group: str
    names: tuple[str, ...] = ()


API_SERVER = Identity(
    "apiserver",
    "kube-apiserver",
    "kubernetes",
    (
        "DNS:localhost",
        "DNS:kubernetes",
        "DNS:kubernetes.default",
        "DNS:kubernetes.default.svc",
        "DNS:kubernetes.default.svc.cluster.local",
        "IP:127.0.0.1",
        f"IP:{HOST_ADDRESS}",
        f"IP:{SERVICE_OF_API}",
    ),
)
CLIENTS = (
    Identity("admin", "trainyard-admin", "system:masters"),
    Identity("kubelet-client", "trainyard-apiserver", "system:masters"),
    Identity("front-proxy", "front-proxy", "front-proxy"),
    Identity("controller-manager", "system:kube-controller-manager", "system:kube-controller-manager"),
    Identity("scheduler", "system:kube-scheduler", "system:kube-scheduler"),
    Identity("proxy", "system:kube-proxy", "system:node-proxier"),
    Identity("dns", "trainyard:dns", "trainyard"),
    Identity("provisioner", "trainyard:provisioner", "trainyard"),
)
KUBELETS = tuple(
    Identity(f"kubelet-{n.name}", f"system:node:{n.name}", "system:nodes", (f"DNS:{n.name}", f"IP:{n.address}"))
    for n in NODES
)
WITH_KUBECONFIG = ("controller-manager", "scheduler", "proxy", "dns", "provisioner", *(k.file for k in KUBELETS))


def make(paths: Paths) -> bool:
    """All certificates and kubeconfigs, unless they are there. True if they were made."""
    done = paths.pki / "complete"
    if done.exists() and paths.kubeconfig.exists():
        return False
    paths.pki.mkdir(parents=True, exist_ok=True)
    paths.pki.chmod(0o700)
    _authority(paths.pki)
    _service_account_key(paths.pki)
    for identity in (API_SERVER, *CLIENTS, *KUBELETS):
        _issue(paths.pki, identity)
    for file in WITH_KUBECONFIG:
        _write_private(paths.pki / f"{file}.kubeconfig", kubeconfig(paths.pki, file))
    _write_private(paths.kubeconfig, kubeconfig(paths.pki, "admin"))
    done.touch()
    return True


def kubeconfig(pki: Path, file: str) -> str:
    """A self-contained kubeconfig (JSON is YAML), so that it works from any folder or when copied."""

    def data(name: str) -> str:
        return base64.b64encode((pki / name).read_bytes()).decode()

    user = {"client-certificate-data": data(f"{file}.crt"), "client-key-data": data(f"{file}.key")}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CONTEXT, "cluster": {"server": SERVER, "certificate-authority-data": data("ca.crt")}}],
        "users": [{"name": file, "user": user}],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CONTEXT, "user": file}}],
        "current-context": CONTEXT,
    }
    return json.dumps(document, indent=1) + "\n"


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)


def _openssl(*words: str, text: str = "") -> None:
    done = subprocess.run(["openssl", *words], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"openssl {words[0]} failed: {done.stderr.strip()}")


def _authority(pki: Path) -> None:
    key, certificate = str(pki / "ca.key"), str(pki / "ca.crt")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key]
    subject = ["-subj", "/CN=trainyard-local"]
    usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    days = ["-days", str(365 * YEARS)]
    _openssl("req", "-x509", *new_key, "-out", certificate, *subject, *days, *usage)


def _service_account_key(pki: Path) -> None:
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(pki / "sa.key"))
    _openssl("pkey", "-in", str(pki / "sa.key"), "-pubout", "-out", str(pki / "sa.pub"))


def _issue(pki: Path, identity: Identity) -> None:
    base = pki / identity.file
    request, extensions = base.with_suffix(".csr"), base.with_suffix(".ext")
    lines = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
    if identity.names:
        lines.append("subjectAltName=" + ",".join(identity.names))
    extensions.write_text("\n".join(lines) + "\n")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{base}.key"]
    _openssl("req", *new_key, "-out", str(request), "-subj", f"/O={identity.group}/CN={identity.user}")
    signer = ["-CA", str(pki / "ca.crt"), "-CAkey", str(pki / "ca.key"), "-CAcreateserial"]
    life = ["-days", str(365 * YEARS), "-extfile", str(extensions)]
    _openssl("x509", "-req", "-in", str(request), "-out", f"{base}.crt", *signer, *life)
    request.unlink()
    extensions.unlink()
