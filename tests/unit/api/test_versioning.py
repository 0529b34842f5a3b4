"""What a result is called where nothing is said about it."""

import pytest

from trainyard.api.manifest import parse_run
from trainyard.api.run.versioning import values_of


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("hf://HuggingFaceTB/SmolLM2-135M-Instruct@main", "sre-smollm2-135m-instruct-20261128-0a1b2c3d"),
        ("s3://bases/SmolLM2-135M-Instruct.gguf", "sre-smollm2-135m-instruct-20261128-0a1b2c3d"),
    ],
)
def test_the_base_gives_its_last_part_and_no_ending_of_a_file(uri: str, name: str) -> None:
    metadata = {"name": "sre", "namespace": "lab", "uid": "0a1b2c3d-4e5f", "creationTimestamp": "2026-11-28T09:30:00Z"}
    spec = {
        "model": {"storageUri": uri},
        "datasets": [{"name": "d", "inline": {"text": "hello"}}],
        "training": {"method": "CPT"},
    }
    run = parse_run({"apiVersion": "trainyard.dev/v1alpha1", "kind": "TrainingRun", "metadata": metadata, "spec": spec})
    assert values_of(metadata=run.metadata, spec=run.spec)["model"] == name
