"""The words by which every verb that asks a cluster is told which one, and the client that they make."""

import argparse
import shlex

from trainyard.cli.exits import Misused
from trainyard.cli.options import completes
from trainyard.client import Runs, connect


def add_cluster(parser: argparse.ArgumentParser, *, all_namespaces: bool = False) -> None:
    """kubectl's own options, by kubectl's names."""
    group = parser.add_argument_group("Cluster")
    group.add_argument("-n", "--namespace", default="", metavar="NAME", help="Default: that of the context.")
    if all_namespaces:
        group.add_argument("-A", "--all-namespaces", action="store_true", help="Of all namespaces.")
    group.add_argument("--context", default="", metavar="NAME", help="Context of the kubeconfig.")
    group.add_argument("--kubeconfig", default="", metavar="FILE", help="Default: $KUBECONFIG, or ~/.kube/config.")
    group.add_argument("--as", dest="acting_as", default="", metavar="USER", help="Ask as somebody else.")
    group.add_argument(
        "--request-timeout", default="30s", metavar="TIME", help="How long the API server may take to answer: 10s, 1m."
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run that the verb is about."""
    completes("run", parser.add_argument("name", metavar="RUN", help="Name of the TrainingRun."))


def runs_of(options: argparse.Namespace) -> Runs:
    """The client for what the options say. Raises ClientError."""
    return connect(
        namespace=None if getattr(options, "all_namespaces", False) else options.namespace,
        context=options.context,
        kubeconfig=options.kubeconfig,
        timeout=seconds_of(options.request_timeout, option="--request-timeout") or 30,
        acting_as=options.acting_as,
    )


def name_of(options: argparse.Namespace) -> str:
    """The run's name, also where kubectl's form kind/name was written."""
    return str(options.name).rpartition("/")[2]


def same_cluster(options: argparse.Namespace, *, namespace: str = "", everywhere: bool = False) -> str:
    """What follows in a further command so that it asks where this one asked: ` -n lab --context forge`; empty where the
    defaults do. `namespace` is that of the run, for who has looked through all of them; `everywhere` names none."""
    inside = namespace if getattr(options, "all_namespaces", False) else options.namespace
    said = [("--context", options.context), ("--kubeconfig", options.kubeconfig), ("--as", options.acting_as)]
    if not everywhere:
        said.insert(0, ("-n", inside))
    return "".join(f" {option} {shlex.quote(value)}" for option, value in said if value)


UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds_of(text: str, *, option: str) -> float | None:
    """10, 30s, 5m, 1h30m; 0 means without end. Raises Misused."""
    total, number = 0.0, ""
    for place, letter in enumerate(text):
        if letter.isdecimal() or letter == ".":
            number += letter
        elif letter in UNITS and number:
            total, number = total + float(number) * UNITS[letter], ""
        else:
            raise Misused(f"{option} {text!r} is no time at character {place + 1}: write 30s, 5m or 1h30m")
    if number.count(".") > 1 or number == ".":
        raise Misused(f"{option} {text!r} is no time: write 30s, 5m or 1h30m")
    return total + float(number or 0) or None


def kubectl_words(options: argparse.Namespace, *, namespace: str) -> list[str]:
    """The same cluster in kubectl's own words."""
    words = ["--namespace", namespace]
    for option, value in (("context", options.context), ("kubeconfig", options.kubeconfig), ("as", options.acting_as)):
        words += [f"--{option}", value] if value else []
    return words
