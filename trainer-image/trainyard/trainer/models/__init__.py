"""Models: from a hub, a volume, or random weights; with or without an adapter."""
