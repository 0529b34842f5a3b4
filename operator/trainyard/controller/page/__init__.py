"""The live page: who sees what happens, and why something waits, without a tool of his own. Read-only."""
