"""Install or upgrade the operator in the chosen cluster, and wait until it is ready.

The local registry's images carry one tag for ever, so the operator is pinned by the digest that the tag has now: an image
that was built anew is rolled out, one that was not restarts nothing. In a cluster of your own, TRAINYARD_REGISTRY says
where `make images` pushed them, or OPERATOR_IMAGE and TRAINER_IMAGE name two that are there already.
"""

import os
import sys
import urllib.request

import target

REGISTRY = "localhost:5001"
MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
NAMESPACE_MANIFEST = f"""\
apiVersion: v1
kind: Namespace
metadata:
  name: {target.NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


def digest(image: str) -> str:
    """What the local registry's tag `dev` of an image stands for."""
    url = f"http://{REGISTRY}/v2/trainyard/{image}/manifests/dev"
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": MANIFESTS})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.headers["Docker-Content-Digest"])
    except OSError as error:
        raise target.Refused(
            f"the registry at {REGISTRY} has no image trainyard/{image}:dev: run `make images`"
        ) from error


def image_values() -> dict[str, str]:
    """The chart's values that choose images."""
    if target.cluster() == "local":
        return {"image.tag": "dev", "image.digest": digest("operator"), "trainerImage.tag": "dev"}
    values = {"image.tag": "dev", "trainerImage.tag": "dev"}
    registry = os.environ.get("TRAINYARD_REGISTRY", "").rstrip("/")
    for variable, value, name in (
        ("OPERATOR_IMAGE", "image", "operator"),
        ("TRAINER_IMAGE", "trainerImage", "trainer"),
    ):
        if image := os.environ.get(variable):
            repository, colon, tag = image.rpartition(":")
            if not colon or "/" in tag:
                raise target.Refused(f"{variable}={image} has no tag: write repository:tag")
            values |= {f"{value}.repository": repository, f"{value}.tag": tag}
        elif registry:
            values[f"{value}.repository"] = f"{registry}/trainyard/{name}"
        elif target.cluster() == "existing":
            raise target.Refused(
                f"which images? Set TRAINYARD_REGISTRY to where `make images` pushed them, or {variable} to one that the "
                "nodes can pull"
            )
    return values


def install() -> None:
    """Namespace, chart, readiness. Raises `target.Refused`."""
    target.confirm_context()
    target.call("kubectl", "apply", "-f", "-", stdin=NAMESPACE_MANIFEST)
    settings = [word for name, value in image_values().items() for word in ("--set-string", f"{name}={value}")]
    chart = str(target.ROOT / "charts/trainyard")
    where = ("--namespace", target.NAMESPACE)
    command = (
        "upgrade",
        "--install",
        target.RELEASE,
        chart,
        *where,
        *settings,
        *_takeover(),
        "--wait",
        "--timeout",
        "3m",
    )
    try:
        target.call("helm", *command)
    except target.Refused as error:
        raise target.Refused(f"{error}\n\n{_why_not_ready()}") from None


def _takeover() -> tuple[str, ...]:
    """A CRD that stayed from an earlier release, or that was applied by hand, becomes this release's."""
    if target.call("helm", "version", "--short").startswith("v3"):
        return ("--take-ownership",)
    return ("--take-ownership", "--force-conflicts")


def _why_not_ready() -> str:
    selector = f"app.kubernetes.io/instance={target.RELEASE}"
    where = ("-n", target.NAMESPACE)
    pods = target.call("kubectl", "get", "pods", *where, "-l", selector, "-o", "wide", check=False)
    log = target.call("kubectl", "logs", *where, "-l", selector, "--tail=20", check=False)
    return f"{pods}\n{log}".strip()


if __name__ == "__main__":
    try:
        install()
    except target.Refused as refused:
        sys.exit(f"install: {refused}")
    print(f"Trainyard is installed in {target.NAMESPACE}. Next: kubectl apply -f examples/quickstart/trainingrun.yaml")
