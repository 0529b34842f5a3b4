"""Reconciling a TrainingRun: observe, plan (pure), apply, write the status."""
