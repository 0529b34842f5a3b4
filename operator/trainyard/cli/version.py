"""`trainyard version`."""

from importlib.metadata import version as installed

import typer

from trainyard.api import API_VERSION


def version() -> None:
    """Print the version of this program and of the API it knows."""
    typer.echo(f"trainyard {installed('trainyard')} (API {API_VERSION})")
