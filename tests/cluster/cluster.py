"""The test cluster's command: `python3 tests/cluster/cluster.py up|down|status|load|images|...`.

CLUSTER chooses what stands behind it: `local` (two real nodes on this machine, no container engine needed), `kind`, or
`existing` (the cluster of the current kubeconfig). README.md in this folder tells more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from driver import images, local
from driver.errors import ClusterError
from driver.settings import paths


def parser() -> argparse.ArgumentParser:
    main_parser = argparse.ArgumentParser(prog="cluster.py", description=__doc__)
    commands = main_parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="bring the cluster up, or repair it")
    down = commands.add_parser("down", help="end the cluster; programs and images stay for the next time")
    down.add_argument("--purge", action="store_true", help="remove programs and images too")
    commands.add_parser("status", help="what runs, with its memory; exit status 1 if something is wrong")
    commands.add_parser("images", help="build, push and pull the images").add_argument("name", nargs="*")
    commands.add_parser("load", help="put an image of the builder on every node").add_argument("image")
    commands.add_parser("pids", help="process ids as JSON")
    node = commands.add_parser("node", help="stop or start the kubelet of one node")
    node.add_argument("action", choices=["stop", "start"])
    node.add_argument("name")
    server = commands.add_parser("apiserver", help="kill and start the API server")
    server.add_argument("action", choices=["restart"])
    return main_parser


def main(words: Sequence[str] | None = None) -> int:
    chosen = parser().parse_args(words)
    state = paths()
    try:
        match chosen.command:
            case "up":
                local.up(state)
            case "down":
                local.down(state, purge=chosen.purge)
            case "status":
                return 0 if local.show_status(state) else 1
            case "images":
                images.build_images(state, chosen.name)
            case "load":
                images.load(state, chosen.image)
            case "pids":
                local.print_pids(state)
            case "node":
                act = local.stop_node if chosen.action == "stop" else local.start_node
                act(state, local.node_by_name(chosen.name))
            case "apiserver":
                local.restart_api_server(state)
    except ClusterError as error:
        print(f"cluster.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
