"""`trainyard import`: configurations of other trainers, what becomes of them, and that nothing is lost in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.calling import Result, call

TUNIX = """\
dataset:
  manifest_path: "backend/datasets/test-v1/manifest.json"
  format: "training_example"
model:
  base_model: "google/gemma-2b-it"
training:
  num_epochs: 3
  batch_size: 4
  learning_rate: 2e-5
  warmup_steps: 100
output:
  run_dir: "artifacts/training_runs"
  checkpoint_every: 500
"""
TUNIX_REMOTE = """\
dataset: {manifest_path: "s3://data/v1/manifest.json", format: tunix_sft}
model: {base_model: "google/gemma-7b-it"}
tunix_job_config: {accelerator: "tpu-v3-8", region: "us-central1"}
training: {num_epochs: 5, batch_size: 16, learning_rate: 1e-5, warmup_ratio: 0.1}
tunix: {api_base_url: "https://api.tunix.ai/v1", project_id: "prod", experiment_name: "sft-v1"}
output: {run_dir: "gs://artifacts/training_runs", checkpoint_every: 1000}
"""
SYSTEMS = (("metrics", "prometheus"), ("logs", "loki"), ("traces", "tempo"))
HOMELAB = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: trm-finetune-config, namespace: ml-platform}
data:
  NOTIFI_SERVICES_PATH: /workspace/notifi/repos/notifi-services
  PROMETHEUS_URL: http://prometheus.monitoring.svc:9090
  LOKI_URL: http://loki.monitoring.svc:3100
  TEMPO_URL: http://tempo.tempo.svc:3200
  DATA_DAYS: "30"
  EPOCHS: "50000"
  LR: 1e-4
  L_LAYERS: "2"
  H_CYCLES: "3"
  L_CYCLES: "6"
"""
AXOLOTL = """\
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
load_in_4bit: true
adapter: qlora
lora_r: 32
lora_alpha: 16
lora_dropout: 0.05
lora_target_modules: [q_proj, v_proj]
datasets:
  - path: org/chats
    type: chat_template
    field_messages: conversations
  - path: ./data/alpaca.jsonl
    type: alpaca
val_set_size: 0.05
sequence_len: 2048
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
max_steps: 500
optimizer: paged_adamw_8bit
lr_scheduler: cosine
learning_rate: 2e-4
warmup_ratio: 0.1
bf16: true
gradient_checkpointing: true
saves_per_epoch: 2
save_total_limit: 2
mlflow_tracking_uri: http://mlflow.lab:5000
mlflow_experiment_name: chats
wandb_project: mine
flash_attention: true
loss_watchdog_threshold: 5
output_dir: ./outputs
"""
LLAMA_FACTORY = """\
model_name_or_path: Qwen/Qwen2.5-0.5B-Instruct
stage: dpo
finetuning_type: lora
lora_rank: 8
lora_target: all
pref_beta: 0.1
pref_loss: sigmoid
dataset: dpo_en, dpo_zh
template: qwen
cutoff_len: 2048
max_samples: 1000
val_size: 0.1
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 5.0e-6
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
save_steps: 500
report_to: tensorboard
output_dir: saves/x
"""


def imported(text: str, *words: str) -> tuple[Result, dict[str, Any]]:
    result = call("import", "-f", "-", *words, stdin=text)
    return result, yaml.safe_load(result.stdout)["spec"]


@pytest.mark.parametrize(
    ("stage", "method", "format"), [("kto", "KTO", "UnpairedPreference"), ("rm", "RewardModel", "Preference")]
)
def test_stages_of_preferences(stage: str, method: str, format: str) -> None:
    _, spec = imported(LLAMA_FACTORY.replace("stage: dpo", f"stage: {stage}").replace("pref_loss: sigmoid\n", ""))
    assert spec["training"]["method"] == method
    assert {dataset["format"] for dataset in spec["datasets"]} == {format}


def test_the_small_config_of_the_third_source_is_a_valid_run(tmp_path: Path) -> None:
    file = tmp_path / "sft_tiny.yaml"
    file.write_text(TUNIX)
    result = call("import", "-f", str(file))
    assert (result.exit_code, result.stderr) == (0, "")
    run = yaml.safe_load(result.stdout)
    assert run["metadata"]["name"] == "sft-tiny"
    assert run["spec"] == {
        "training": {
            "method": "SFT",
            "numTrainEpochs": 3,
            "perDeviceTrainBatchSize": 4,
            "learningRate": 2e-5,
            "warmupSteps": 100,
        },
        "model": {"storageUri": "hf://google/gemma-2b-it"},
        "datasets": [
            {
                "name": "data",
                "manifest": {"storageUri": "pvc://training-data/backend/datasets/test-v1/manifest.json"},
                "format": "TrainingExample",
            }
        ],
        "checkpoints": {"everySteps": 500},
    }
    assert "# - output.run_dir: artifacts/training_runs" in result.stdout
    assert call("validate", "-f", "-", stdin=result.stdout).exit_code == 0


def test_what_belongs_to_a_remote_service_is_told() -> None:
    result, spec = imported(TUNIX_REMOTE)
    assert result.exit_code == 0
    assert spec["training"]["warmupSteps"] == 0.1
    assert spec["datasets"][0]["manifest"] == {"storageUri": "s3://data/v1/manifest.json"}
    for lost in (
        "tunix.api_base_url",
        "tunix.project_id",
        "tunix_job_config.accelerator",
        "tunix.experiment_name",
        "gs://",
    ):
        assert lost in result.stdout


def test_axolotl() -> None:
    result, spec = imported(AXOLOTL, "--name", "chats")
    assert (result.exit_code, result.stderr) == (0, "")
    assert spec["model"] == {
        "storageUri": "hf://HuggingFaceTB/SmolLM2-135M-Instruct",
        "adapter": {
            "lora": {"rank": 32, "alpha": 16, "dropout": 0.05, "targetModules": ["q_proj", "v_proj"]},
            "quantization": "NF4",
        },
    }
    chats, alpaca = spec["datasets"]
    assert chats["columns"] == {"messages": "conversations"}
    assert (alpaca["format"], alpaca["split"]) == ("PromptCompletion", {"eval": 0.05})
    assert spec["training"] == {
        "method": "SFT",
        "maxLength": 2048,
        "packing": True,
        "perDeviceTrainBatchSize": 2,
        "gradientAccumulationSteps": 4,
        "maxSteps": 500,
        "optim": "paged_adamw_8bit",
        "lrSchedulerType": "cosine",
        "learningRate": 2e-4,
        "warmupSteps": 0.1,
        "precision": "BF16",
        "gradientCheckpointing": True,
    }
    assert spec["checkpoints"] == {"keepLast": 2}
    assert spec["tracking"]["mlflow"] == {"trackingUri": "http://mlflow.lab:5000", "experiment": "chats"}
    for lost in (
        "num_epochs: 3",
        "saves_per_epoch: 2",
        "wandb_project: mine",
        "loss_watchdog_threshold: 5",
        "flash_attention",
    ):
        assert f"# - {lost}" in result.stdout


def test_llama_factory() -> None:
    result, spec = imported(LLAMA_FACTORY)
    assert (result.exit_code, result.stderr) == (0, "")
    assert spec["training"]["method"] == "DPO"
    assert spec["training"]["extraArgs"] == {"beta": 0.1}
    assert spec["training"]["numTrainEpochs"] == 3.0
    assert spec["model"]["adapter"] == {"lora": {"rank": 8}}
    assert [d["name"] for d in spec["datasets"]] == ["dpo-en", "dpo-zh"]
    assert spec["datasets"][0]["limit"] == 1000
    assert spec["checkpoints"] == {"everySteps": 500}
    assert spec["tracking"] == {"tensorboard": True}
    for lost in ("template: qwen", "dataset dpo_en: an entry of dataset_info.json", "output_dir: saves/x"):
        assert f"# - {lost}" in result.stdout


@pytest.mark.parametrize("text", [TUNIX, TUNIX_REMOTE, AXOLOTL, LLAMA_FACTORY, HOMELAB])
def test_every_key_is_carried_over_or_told(text: str) -> None:
    """A key that nobody knows is added at each level; each of them is in what is printed."""
    config = yaml.safe_load(text) | {"unheard_of": 17}
    for section in list(config.values()):
        if isinstance(section, dict):
            section["never_seen"] = 18
    result, _ = imported(yaml.safe_dump(config))
    assert "# - unheard_of: 17  (no such field here)" in result.stdout
    assert result.stdout.count("never_seen: 18") == sum(isinstance(v, dict) for v in config.values())


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("a: [", 1, "YAML"),
        ("foo: 1\n", 1, "say which with --from"),
        ("model_name_or_path: a/b\nstage: rlhf\n", 1, "stage rlhf cannot be trained here"),
        ("base_model: a/b\n", 1, "spec.datasets"),
    ],
)
def test_what_cannot_be_a_run_says_why(text: str, code: int, said: str) -> None:
    result = call("import", "-f", "-", stdin=text)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_the_ten_settings_of_a_configmap() -> None:
    done, spec = imported(HOMELAB)
    assert done.exit_code == 0, done.stderr
    assert spec["model"] == {"trm": {"lLayers": 2, "hCycles": 3, "lCycles": 6}}
    assert spec["training"] == {"method": "TRM", "numTrainEpochs": 50000, "learningRate": 1e-4}
    by_name = {d["name"]: d for d in spec["datasets"]}
    assert by_name["code"]["code"] == {"storageUri": "pvc://training-data/workspace/notifi/repos/notifi-services"}
    assert {n: by_name[n][s]["url"] for n, s in SYSTEMS} == {
        "metrics": "http://prometheus.monitoring.svc:9090",
        "logs": "http://loki.monitoring.svc:3100",
        "traces": "http://tempo.tempo.svc:3200",
    }
    assert all(by_name[n][s]["window"] == {"days": 30} for n, s in SYSTEMS)
    assert "PROMETHEUS_URL names no queries: up is asked" in done.stdout
    assert "no such field" not in done.stdout, "nothing of it is left"


def test_the_same_settings_in_a_secret_and_only_some_of_them() -> None:
    secret = "kind: Secret\nmetadata: {name: s}\ndata: {EPOCHS: NTAw}\nstringData: {LR: 3e-4, PROMETHEUS_URL: 'http://p:9090'}\n"
    done, spec = imported(secret)
    assert (done.exit_code, spec["training"]["numTrainEpochs"], spec["training"]["learningRate"]) == (0, 500, 3e-4)
    assert "window" not in spec["datasets"][0]["prometheus"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: ConfigMap\ndata: {EPOCHS: many}\n", "EPOCHS is 'many', which is no number"),
        ("kind: Secret\ndata: {LR: '?'}\n", "data.LR of the Secret is not base64"),
    ],
)
def test_settings_that_are_none(text: str, words: str) -> None:
    done = call("import", "-f", "-", stdin=text)
    assert done.exit_code != 0
    assert words in done.stderr
