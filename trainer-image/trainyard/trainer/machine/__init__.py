"""The machine under a step: its device, its threads, and the processes that train together."""
