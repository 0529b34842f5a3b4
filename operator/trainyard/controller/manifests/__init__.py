"""Builders of the objects that a run needs: pure functions from the spec to plain dictionaries."""
