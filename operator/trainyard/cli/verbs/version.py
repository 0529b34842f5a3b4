"""`trainyard version`."""

import argparse
import json
from importlib.metadata import version as installed

from trainyard.api import API_VERSION
from trainyard.cli.printing import add_output


def arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser, forms=("table", "json"))


def call(options: argparse.Namespace) -> None:
    """Print the version of this program and of the API it knows.

    What is installed in the cluster is told by `trainyard doctor`.
    """
    version = installed("trainyard")
    if options.output == "json":
        print(json.dumps({"version": version, "apiVersion": API_VERSION}))
    else:
        print(f"trainyard {version} (API {API_VERSION})")
