"""The TrainingRun: what a user writes, and what the operator answers in its status."""
