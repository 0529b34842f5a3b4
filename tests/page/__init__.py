"""The live page: what it is told, and what real browsers make of it."""
