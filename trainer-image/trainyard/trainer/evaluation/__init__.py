"""Measuring the trained model."""
