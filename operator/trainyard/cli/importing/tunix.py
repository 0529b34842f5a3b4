"""Training configs of tunix-rt (`sft_tiny.yaml`): dataset by manifest, base model, few hyperparameters, output folder."""

from collections.abc import Mapping
from typing import Any

from trainyard.cli.importing.reading import Reading, number

FORMATS = {"training_example": "TrainingExample", "tunix_sft": "TunixSFT"}
BATCH, EPOCHS = "training.perDeviceTrainBatchSize", "training.numTrainEpochs"
REMOTE = ("tunix.api_base_url", "tunix.project_id", "tunix_job_config.accelerator", "tunix_job_config.region")


def is_one(config: Mapping[str, Any]) -> bool:
    dataset, model = config.get("dataset"), config.get("model")
    return (isinstance(dataset, Mapping) and "manifest_path" in dataset) or (
        isinstance(model, Mapping) and "base_model" in model
    )


def read(reading: Reading) -> None:
    reading.put("training.method", "SFT")
    reading.weights(reading.take("model.base_model"))
    path = reading.take("dataset.manifest_path")
    form = reading.take("dataset.format")
    if path:
        place = reading.place(str(path), what="manifest")
        reading.spec["datasets"] = [{"name": "data", "manifest": place}]
        if form in FORMATS:
            reading.spec["datasets"][0]["format"] = FORMATS[form]
        elif form is not None:
            reading.note(f"dataset.format {form}: not one of {', '.join(FORMATS)}; the manifest's own is taken")
    reading.move("training.num_epochs", EPOCHS, number)
    reading.move("training.batch_size", BATCH, number)
    reading.move("training.max_seq_length", "training.maxLength", number)
    reading.hugging_face("training.")
    reading.move("output.checkpoint_every", "checkpoints.everySteps", number)
    if folder := reading.take("output.run_dir"):
        reading.note(f"output.run_dir: {folder}  (results lie on the run's volume; an export copies them to a bucket)")
    if experiment := reading.take("tunix.experiment_name"):
        reading.note(
            f"tunix.experiment_name: {experiment}  (tracking.mlflow.experiment, where there is an MLflow server)"
        )
    for name in REMOTE:
        if value := reading.take(name):
            reading.note(f"{name}: {value}  (about a remote service; this run is trained in the cluster)")
