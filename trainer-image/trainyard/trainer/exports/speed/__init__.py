"""How fast an exported model answers: one process a measurement, so that its memory is its own."""
