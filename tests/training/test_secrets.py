"""Which Secrets the steps open, seen from outside: exactly those that the operator mounts for them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForSequenceClassification

from tests.training.method_specs import method_spec, prompts
from tests.training.runs import Run
from tests.webserver import Reply, web
from trainyard.api.references import named
from trainyard.api.run.trainingrun import TrainingRunSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATCH = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import ANY
from trainyard.trainer.exports import hub
from trainyard.trainer.data import upload
from trainyard.trainer.volume import origin

secrets = os.environ["TRAINYARD_SECRETS_DIR"] + "/"
def tell(event, arguments):
    if event in ("open", "os.listdir", "os.scandir") and not isinstance(arguments[0], int):
        if str(arguments[0]).startswith(secrets):
            os.write(1, f"opens {str(arguments[0]).removeprefix(secrets).partition('/')[0]}\\n".encode())
sys.addaudithook(tell)
# Nobody is spoken to: a hub's models lie in a folder, and both stores have everything already.
origin.from_hub = lambda repository, *_, **__: Path(os.environ["HUB"]) / repository
hub._guarded = lambda field, target, call: SimpleNamespace(oid="abc")
upload.Bucket = lambda **_: SimpleNamespace(find=lambda key: SimpleNamespace(size=ANY))
"""
SECRETS = {"weights", "judge", "data", "store", "tracker", "writer"}


@pytest.fixture(scope="module")
def models(undisturbed: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub with a model and one that scores, for the same tokens."""
    hub = tmp_path_factory.mktemp("hub")
    shutil.copytree(undisturbed.work / "model", hub / "org" / "base")
    shutil.copytree(undisturbed.work / "data" / "tokenizer", hub / "org" / "judge")
    size = LlamaConfig.from_pretrained(hub / "org" / "base").vocab_size
    tiny = LlamaConfig(vocab_size=size, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                       num_labels=1)  # fmt: skip
    LlamaForSequenceClassification(tiny).save_pretrained(hub / "org" / "judge")
    return hub


@pytest.mark.parametrize("cached", [False, True])
def test_a_step_opens_the_secrets_that_are_mounted_for_it_and_no_others(
    cached: bool, models: Path, new_run: Callable[..., Run]
) -> None:
    run = new_run(patch=PATCH, environment={"HUB": str(models)})
    spec = run.spec = method_spec("PPO", models)
    spec["model"] = {"storageUri": "hf://org/base", "secretRef": {"name": "weights"}}
    judge = {"model": {"storageUri": "hf://org/judge", "secretRef": {"name": "judge"}}}
    spec["training"] |= {"rewards": [judge], "maxSteps": 2}
    spec["datasetUpload"] = {"storageUri": "s3://bucket/built", "secretRef": {"name": "store"}}
    spec["pushToHub"] = {"repo": "org/result", "secretRef": {"name": "writer"}}
    tracker = {"trackingUri": "http://127.0.0.1:9", "secretRef": {"name": "tracker"}}
    spec["tracking"] = {"mlflow": tracker}
    if cached:
        spec["storage"] = {"cache": {"size": "1Gi"}}
    for name in SECRETS:
        folder = run.folder / "secrets" / name
        folder.mkdir(parents=True)
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if name == "store" else ("token",)
        for key in keys:
            (folder / key).write_text("x")
    with web(lambda asked: Reply(prompts())) as server:
        source = {"storageUri": f"{server.url}/prompts.json", "secretRef": {"name": "data"}}
        spec["datasets"] = [{"name": "d", "format": "Prompt", "split": {"eval": 0.2}, **source}]
        made = TrainingRunSpec.model_validate(spec)
        assert set(named(made, "Secret")) == SECRETS
        spec["mode"] = "DryRun"
        steps = {"validate": run.run("validate")}
        spec["mode"] = "Train"
        names = [*made.steps(), *(export.step for export in made.all_exports())]
        steps |= {step: run.run(step) for step in names}
    opened = {name: {line[6:] for line in step.lines if line.startswith("opens ")} for name, step in steps.items()}
    dry = TrainingRunSpec.model_validate({**spec, "mode": "DryRun"})
    assert opened == {
        "validate": set(named(dry, "Secret", step="validate")),
        **{step: set(named(made, "Secret", step=step)) for step in names},
    }
