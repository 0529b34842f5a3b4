"""The verbs, a module each; the table of them stands in `trainyard.cli.catalogue`."""
