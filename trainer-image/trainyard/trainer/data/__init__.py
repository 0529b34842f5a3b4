"""Data: sources, formats, tokens, packed sequences."""
