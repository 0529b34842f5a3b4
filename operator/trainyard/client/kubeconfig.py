"""Where the API server is and how to log in there: from a kubeconfig, or from within a pod.

What is read: the files of $KUBECONFIG (or ~/.kube/config), of several the first that has a name wins, as kubectl does it;
certificates, tokens, token files and exec plugins. Without any file, a pod's own service account.
"""

import base64
import binascii
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainyard.client.errors import NoAccess

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
PLUGIN_SECONDS = 60


@dataclass(frozen=True, repr=False)
class Access:
    """How to reach one API server. Never printed: it holds credentials."""

    server: str
    namespace: str = "default"
    context: str = ""
    authority: str = ""
    """PEM of who signs the server's certificate; empty: those that the machine trusts."""
    insecure: bool = False
    server_name: str = ""
    proxy: str = ""
    token: str = ""
    certificate: str = ""
    key: str = ""
    login: str = ""
    """A whole Authorization header, where it is no token."""
    plugin: Mapping[str, Any] | None = None
    """The exec plugin that gives token or certificate; asked by `logged_in`."""


def read_access(*, context: str = "", kubeconfig: str = "") -> Access:
    """The access that kubectl would use. Raises NoAccess."""
    files = [kubeconfig] if kubeconfig else [f for f in os.environ.get("KUBECONFIG", "").split(os.pathsep) if f]
    paths = [Path(f) for f in files] or [Path.home() / ".kube" / "config"]
    present = [path for path in paths if path.is_file()]
    if not present:
        if not files and (SERVICE_ACCOUNT / "token").is_file():
            return _of_the_pod()
        raise NoAccess(
            f"there is no kubeconfig at {', '.join(map(str, paths))}: set KUBECONFIG, or give --kubeconfig FILE"
        )
    merged = _Config([(path, _load(path)) for path in present])
    name = context or merged.current
    if not name:
        raise NoAccess("the kubeconfig has no current context: kubectl config use-context NAME, or give --context NAME")
    return merged.access(name)


def contexts(*, kubeconfig: str = "") -> list[str]:
    """The contexts' names, for completion."""
    files = [kubeconfig] if kubeconfig else os.environ.get("KUBECONFIG", "").split(os.pathsep)
    paths = [Path(f) for f in files if f] or [Path.home() / ".kube" / "config"]
    return [str(c.get("name")) for path in paths if path.is_file() for c in _load(path).get("contexts") or ()]


class _Config:
    """Several files as one."""

    def __init__(self, files: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
        self._files = files
        self.current = next((str(f["current-context"]) for _, f in files if f.get("current-context")), "")

    def _entry(self, kind: str, plural: str, name: str) -> tuple[Path, Mapping[str, Any]]:
        for path, file in self._files:
            for entry in file.get(plural) or ():
                if entry.get("name") == name:
                    return path.parent, entry.get(kind) or {}
        known = ", ".join(sorted(str(e.get("name")) for _, f in self._files for e in f.get(plural) or ())) or "none"
        raise NoAccess(f"the kubeconfig has no {kind} {name!r}; it has {known}")

    def access(self, name: str) -> Access:
        _, context = self._entry("context", "contexts", name)
        folder, cluster = self._entry("cluster", "clusters", str(context.get("cluster", "")))
        home, user = ("", {}) if not context.get("user") else self._entry("user", "users", str(context["user"]))
        server = str(cluster.get("server") or "")
        if not server:
            raise NoAccess(f"the cluster of context {name!r} has no server in the kubeconfig")
        login = ""
        if user.get("username"):
            pair = f"{user['username']}:{user.get('password', '')}".encode()
            login = f"Basic {base64.b64encode(pair).decode()}"
        token = str(user.get("token") or "")
        if not token and user.get("tokenFile"):
            token = _read(Path(home) / str(user["tokenFile"])).strip()
        if "auth-provider" in user:
            raise NoAccess(
                f"the user of context {name!r} logs in by an auth-provider, which kubectl has dropped too: use exec"
            )
        return Access(
            server=server.rstrip("/"),
            namespace=str(context.get("namespace") or "default"),
            context=name,
            authority=_pem(cluster, "certificate-authority", folder),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            server_name=str(cluster.get("tls-server-name") or ""),
            proxy=str(cluster.get("proxy-url") or ""),
            token=token,
            certificate=_pem(user, "client-certificate", Path(home)),
            key=_pem(user, "client-key", Path(home)),
            login=login,
            plugin=user.get("exec"),
        )


def logged_in(access: Access) -> Access:
    """The same access with what its exec plugin gives. Raises NoAccess."""
    if access.plugin is None:
        return access
    words = [str(access.plugin.get("command", "")), *map(str, access.plugin.get("args") or ())]
    version = str(access.plugin.get("apiVersion") or "client.authentication.k8s.io/v1")
    cluster = {
        "server": access.server,
        "certificate-authority-data": base64.b64encode(access.authority.encode()).decode(),
    }
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    if access.plugin.get("provideClusterInfo"):
        asked["spec"] = {"interactive": False, "cluster": cluster}
    given = {str(e["name"]): str(e["value"]) for e in access.plugin.get("env") or ()}
    environment = {**os.environ, **given, "KUBERNETES_EXEC_INFO": json.dumps(asked)}
    try:
        done = subprocess.run(words, env=environment, stdout=subprocess.PIPE, timeout=PLUGIN_SECONDS, check=True)
        status = json.loads(done.stdout)["status"]
    except FileNotFoundError as error:
        hint = str(access.plugin.get("installHint") or "install it, or put it on the PATH")
        raise NoAccess(f"the kubeconfig logs in by {words[0]}, which is not there: {hint}") from error
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        raise NoAccess(f"{words[0]} has given no credentials: log in with it, then try again") from error
    return replace(
        access,
        token=str(status.get("token") or ""),
        certificate=str(status.get("clientCertificateData") or access.certificate),
        key=str(status.get("clientKeyData") or access.key),
    )


def _of_the_pod() -> Access:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{host}:{port}",
        namespace=_read(SERVICE_ACCOUNT / "namespace").strip() or "default",
        context="(this pod)",
        authority=_read(SERVICE_ACCOUNT / "ca.crt"),
        token=_read(SERVICE_ACCOUNT / "token").strip(),
    )


def _load(path: Path) -> Mapping[str, Any]:
    # Parsing by libyaml takes a fifth of the time, where it is there.
    import yaml

    try:
        found = yaml.load(_read(path), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise NoAccess(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if found is not None and not isinstance(found, dict):
        raise NoAccess(f"{path} is no kubeconfig")
    return found or {}


def _pem(holder: Mapping[str, Any], field: str, folder: Path) -> str:
    if data := holder.get(f"{field}-data"):
        try:
            return base64.b64decode(str(data)).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise NoAccess(f"{field}-data in the kubeconfig is no base64 of a PEM") from error
    return _read(folder / str(holder[field])) if holder.get(field) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise NoAccess(f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is no text'}") from error
