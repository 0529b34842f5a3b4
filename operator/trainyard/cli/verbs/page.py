"""`trainyard page`: the operator's live page on this machine, through a port that is forwarded to it."""

import argparse
import subprocess
from typing import Any

from trainyard.cli.checkup import OPERATOR
from trainyard.cli.cluster import add_cluster, kubectl_words, runs_of
from trainyard.cli.exits import Missing, Misused
from trainyard.cli.kubectl import program
from trainyard.client import NotAllowed, Runs

PORT = "page"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=int, default=8082, metavar="N", help="On this machine. Default: 8082.")
    parser.add_argument(
        "--operator-namespace", default="", metavar="NAME", help="Where the operator is. Default: it is looked for."
    )
    add_cluster(parser)


def call(options: argparse.Namespace) -> int:
    """Open the operator's live page: forward a port of this machine to it until Ctrl-C.

    It shows what the operator sees. Needs kubectl, and the right to forward ports to the operator's pod.
    """
    if not 0 < options.port < 65536:
        raise Misused(f"--port {options.port} is no port: 1 to 65535")
    operator = _operator(runs_of(options), options.operator_namespace)
    namespace, name = operator["metadata"]["namespace"], operator["metadata"]["name"]
    (container, *_) = operator["spec"]["template"]["spec"]["containers"]
    there = next((p["containerPort"] for p in container.get("ports") or () if p.get("name") == PORT), None)
    if there is None:
        raise Missing(f"the operator {namespace}/{name} serves no page: set the chart value page.listen to Loopback")
    print(f"http://localhost:{options.port}  (the page of {namespace}/{name}; Ctrl-C ends it)", flush=True)
    words = [program(), "port-forward", *kubectl_words(options, namespace=namespace), f"deployment/{name}"]
    return subprocess.run([*words, f"{options.port}:{there}"], stdout=subprocess.DEVNULL).returncode


def _operator(runs: Runs, namespace: str) -> dict[str, Any]:
    within = f"/namespaces/{namespace}" if namespace else ""
    try:
        found = list(runs.api.items(f"/apis/apps/v1{within}/deployments", labelSelector=OPERATOR))
    except NotAllowed as error:
        if namespace:
            raise
        raise Misused(f"say --operator-namespace: {error}") from None
    if not found:
        where = f"namespace {namespace}" if namespace else "this cluster"
        raise Missing(f"there is no operator in {where}: trainyard doctor says what is missing")
    if len(found) > 1:
        there = ", ".join(sorted(str(one["metadata"]["namespace"]) for one in found))
        raise Misused(f"there are several operators: say --operator-namespace, one of {there}")
    return dict(found[0])
