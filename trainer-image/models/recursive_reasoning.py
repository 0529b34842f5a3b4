"""`from models.recursive_reasoning import TRMModel`, as such scripts write it."""

from trainyard.trainer.trm.inference import TRMModel

__all__ = ["TRMModel"]
