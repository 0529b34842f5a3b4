"""What a run is called outside of the cluster: whose it is, and which model it trains, in the words of the lab."""

from collections.abc import Mapping

from trainyard.api import GROUP
from trainyard.api.run.trainingrun import TrainingRunSpec

USER_LABEL = f"{GROUP}/user"
"""On a run: whose it is. Without it, the namespace stands for him."""


def user_id(labels: Mapping[str, str], namespace: str) -> str:
    """Whose run it is."""
    return labels.get(USER_LABEL) or namespace


def model_name(spec: TrainingRunSpec) -> str:
    """The model that the training starts from: `meta-llama/Llama-2-7b` of a hub, the address of another place."""
    if spec.model is None:
        return ""
    uri = spec.model.storage_uri
    if uri is None:
        return f"{spec.model.scratch.architecture} (scratch)" if spec.model.scratch else ""
    return uri.removeprefix("hf://").partition("@")[0] if uri.startswith("hf://") else uri
