"""The cluster of the command line's tests."""

from tests.unit.cli.conftest import cluster

__all__ = ["cluster"]
