"""Configurations of other trainers as TrainingRuns. Each trainer is a module with a function `read`; `kinds.py` tells which."""
