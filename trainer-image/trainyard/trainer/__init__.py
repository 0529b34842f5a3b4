"""The trainer: turns a TrainingRun into a model.

One process per step (`prepare`, `train`, `evaluate`, or `validate` for a dry run). What a step reads is the run's
manifest and the folders that the environment names; what it leaves behind is committed folders on the run's volume, a
final record in the termination message, and an exit code. Nothing in here knows Kubernetes, so the same commands run on
a laptop (`local.py`).

Modules import torch and transformers inside functions where a step does not always need them: preparing data, checking a
manifest and printing help take a fraction of a second because of that.
"""

__version__ = "0.1.0"
