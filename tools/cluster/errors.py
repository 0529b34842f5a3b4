"""The one exception of the driver: something a person can put right."""

from __future__ import annotations


class ClusterError(Exception):
    """Says what is wrong and what to do about it; printed without a traceback."""
