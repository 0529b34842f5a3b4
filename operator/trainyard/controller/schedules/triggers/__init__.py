"""Triggers: judging what a source answered (pure), and asking the sources."""
