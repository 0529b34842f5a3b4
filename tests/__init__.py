"""All tests, as packages that mirror the code: what tests `trainyard/controller/runs` stands in `unit/controller/runs`."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""Of the repository."""
