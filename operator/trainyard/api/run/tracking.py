"""`spec.tracking`: where the numbers of a training are kept besides the run's own status."""

from pydantic import Field

from trainyard.api.addresses import HttpUrl
from trainyard.api.base import ApiModel, SecretRef


class MlflowTracking(ApiModel):
    """An MLflow tracking server. Its absence never holds up a training; what it missed is sent later."""

    tracking_uri: HttpUrl = Field(description="Address of the MLflow server.")
    experiment: str = Field(
        "trainyard",
        min_length=1,
        max_length=250,
        description="Name of the experiment; it is made where it does not exist.",
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret with username and password, or token; optionally ca.crt."
    )
    log_model: bool = Field(
        False, description="Also send the trained model (or adapter); the GPU is held until that is done."
    )


class Tracking(ApiModel):
    """Followers of a training."""

    mlflow: MlflowTracking | None = Field(None, description="Parameters, metrics, data and results as an MLflow run.")
    tensorboard: bool = Field(
        False, description="Write event files for TensorBoard under logs/ on the checkpoint volume."
    )
