"""Manifests for tests: a few complete ones that together use every field."""

import copy
from typing import Any

from tests.api import formats, sinks
from trainyard.api import API_VERSION

Manifest = dict[str, Any]


def run(spec: dict[str, Any], *, name: str = "a") -> Manifest:
    return {"apiVersion": API_VERSION, "kind": "TrainingRun", "metadata": {"name": name}, "spec": copy.deepcopy(spec)}


def schedule(spec: dict[str, Any], *, name: str = "a") -> Manifest:
    return {**run(spec, name=name), "kind": "TrainingSchedule"}


def sweep(spec: dict[str, Any], *, name: str = "a") -> Manifest:
    return {**run(spec, name=name), "kind": "TrainingSweep"}


TEXT = {"name": "d", "inline": {"text": "hello"}}

FINE_TUNING: dict[str, Any] = {
    "suspend": False,
    "mode": "Train",
    "debugSteps": 10,
    "image": "example.org/trainer:1",
    "model": {
        "storageUri": "hf://org/name@main",
        "secretRef": {"name": "hub"},
        "adapter": {
            "lora": {"rank": 8, "alpha": 16, "dropout": 0.1, "targetModules": ["all-linear"], "layers": 4},
            "quantization": "NF4",
            "merge": True,
        },
    },
    "datasets": [
        {
            "name": "d",
            "role": "Train",
            "weight": 1,
            "storageUri": "s3://bucket/key.jsonl",
            "secretRef": {"name": "store"},
            "fileFormat": "JSONL",
            "format": "TRM",
            "convertTo": "Messages",
            "columns": {"problem": "question.text"},
            "filters": [{"field": "metadata.source", "operator": "NotIn", "values": ["test"]}],
            "generate": {"tasks": ["SeriesTrend"], "maxPerTask": 10},
            "deduplicate": "Near",
            "split": {"eval": 0.1, "test": 0.1, "seed": 1, "groupBy": ["repository"]},
            "limit": 10,
            "selectionStrategy": "Latest",
            "timeField": "metadata.timestamp",
            "expectedCount": 1000,
        },
    ],
    "datasetUpload": {"storageUri": "s3://bucket/datasets", "secretRef": {"name": "store"}},
    "pushToHub": {"repo": "org/name", "private": True, "secretRef": {"name": "hub"}},
    "owner": {"project": "homelab", "domain": "production", "agent": "agent-sre", "user": "me", "experiment": "first"},
    "versioning": {"name": "{agent}-{date}-{commit}", "version": "v{date}"},
    "exports": [
        {
            "name": "hub",
            "dependsOn": ["tell"],
            "when": "Succeeded",
            "onFailure": "Continue",
            "backoffLimit": 1,
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
            "hub": {"repo": "org/{agent}", "private": True, "secretRef": {"name": "hub"}},
        },
        {"name": "tell", "configMap": {"name": "agent", "data": {"version": "{version}"}}},
    ],
    "training": {
        "method": "SFT",
        "maxSteps": 10,
        "perDeviceTrainBatchSize": 1,
        "perDeviceEvalBatchSize": 1,
        "gradientAccumulationSteps": 1,
        "learningRate": 1e-4,
        "lrSchedulerType": "cosine",
        "warmupSteps": 0.1,
        "weightDecay": 0.1,
        "maxGradNorm": 1,
        "maxLength": 128,
        "packing": True,
        "optim": "adamw_torch",
        "precision": "FP32",
        "gradientCheckpointing": False,
        "loggingSteps": 1,
        "evalSteps": 5,
        "earlyStopping": {"metric": "loss", "patience": 2, "minimumDelta": 0.1},
        "neftuneNoiseAlpha": 5,
        "callbacks": ["lab.stop:Early"],
        "seed": 1,
        "extraArgs": {"adam_beta2": 0.95},
    },
    "checkpoints": {
        "everySteps": 5,
        "everyMinutes": 5,
        "keepLast": 2,
        "keepBest": True,
        "maxAgeDays": 30,
        "resumeFrom": "other",
    },
    "evaluation": {"enabled": True, "split": "Eval", "baseline": True, "samples": 5},
    "tracking": {
        "mlflow": {
            "trackingUri": "https://mlflow.example.org",
            "experiment": "homelab",
            "secretRef": {"name": "mlflow"},
            "logModel": True,
        },
        "tensorboard": True,
    },
    "notifications": [
        {
            "name": "lab",
            "type": "Webhook",
            "url": "https://lab.example.org/api/alerts/trigger",
            "events": ["job_failed"],
            "secretRef": {"name": "lab"},
        }
    ],
    "storage": {
        "checkpoints": {
            "claimName": "c",
            "size": "1Gi",
            "storageClassName": "fast",
            "accessModes": ["ReadWriteMany"],
            "retain": True,
        },
        "cache": {
            "claimName": "h",
            "size": "1Gi",
            "storageClassName": "fast",
            "accessModes": ["ReadWriteMany"],
            "retain": True,
        },
    },
    "resources": {"requests": {"cpu": 1}, "limits": {"nvidia.com/gpu": 1}},
    "numNodes": 2,
    "numProcPerNode": 1,
    "stepResources": {
        "prepare": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
        "evaluate": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}},
    },
    "placement": {
        "nodeNames": ["arcanine"],
        "nodeSelector": {"disk": "fast"},
        "tolerations": [
            {"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5},
        ],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia",
        "schedulerName": "default-scheduler",
    },
    "podTemplate": {
        "labels": {"team": "a"},
        "annotations": {"note": "b"},
        "env": [{"name": "A", "value": "1"}],
        "envFrom": [{"secretRef": {"name": "s"}}],
        "volumes": [{"name": "v", "emptyDir": {}}],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "initContainers": [
            {
                "name": "fetch",
                "image": "example.org/fetch:1",
                "command": ["fetch"],
                "args": ["--all"],
                "env": [{"name": "A", "value": "1"}],
                "envFrom": [{"secretRef": {"name": "s"}}],
                "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            }
        ],
        "imagePullSecrets": [{"name": "pull"}],
        "imagePullPolicy": "IfNotPresent",
        "serviceAccountName": "sa",
        "securityContext": {"runAsUser": 1001},
        "containerSecurityContext": {"readOnlyRootFilesystem": True},
        "terminationGracePeriodSeconds": 60,
        "sharedMemory": "2Gi",
    },
    "onOutOfMemory": "Fail",
    "estimate": {"accelerator": "H200", "pricePerHour": 3.5},
    "cost": {"hourlyRate": 0.35, "regularHourlyRate": 1, "currency": "USD", "limit": 12, "requireApproval": True},
    "backoffLimit": 1,
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
}

SCRATCH: dict[str, Any] = {
    "model": {
        "scratch": {
            "architecture": "llama",
            "config": {"hidden_size": 64, "rope": {"theta": 1.5}},
            "tokenizer": {"trainVocabSize": 1000},
        },
    },
    "datasets": [TEXT],
    "training": {"method": "Pretrain", "numTrainEpochs": 1.5},
}

ADAPTED: dict[str, Any] = {
    "model": {
        "storageUri": "hf://org/name",
        "adapter": {
            "lora": {
                "dora": False,
                "rsLora": True,
                "loraPlusRatio": 16,
                "initialisation": "Zero",
                "trainableTokens": ["<tool>"],
            }
        },
    },
    "datasets": [{"name": "d", "format": "Messages", "inline": {"records": [{"messages": []}]}}],
    "training": {"method": "SFT", "maxSteps": 1, "attention": "SDPA"},
}
CONTINUED: dict[str, Any] = {
    **ADAPTED,
    "model": {"storageUri": "hf://org/name", "adapter": {"lora": {}, "from": "pvc://adapters/last"}},
}

SCRATCH_WITH_TOKENIZER: dict[str, Any] = {
    "model": {"scratch": {"architecture": "gpt2", "tokenizer": {"storageUri": "pvc://claim/tokenizer"}}},
    "datasets": [{"name": "d", "inline": {"records": [{"text": "hello"}]}}],
    "training": {"method": "Pretrain", "maxSteps": 1},
}

REWARDED: dict[str, Any] = {
    "model": {"storageUri": "pvc://models/base"},
    "datasets": [{"name": "d", "format": "Prompt", "inline": {"records": [{"prompt": "1 + 1 =", "answer": 2}]}}],
    "training": {"method": "PPO", "rewards": [{"exactMatch": {"ignoreCase": True}, "weight": 2}]},
}
REWARDS: tuple[dict[str, Any], ...] = (
    {"contains": {"text": "so"}},
    {"regex": {"pattern": "^[0-9]+$"}},
    {"jsonValid": {}},
    {"length": {"target": 10}},
    {"model": {"storageUri": "pvc://models/judge", "secretRef": {"name": "hub"}}},
    {"toolCall": {}},
    {"jsonSchema": {"schema": {"type": "object"}}},
    {"code": {"timeoutSeconds": 3, "memory": "128Mi"}},
    {"http": {"url": "https://judge.example.org/score", "secretRef": {"name": "hub"}}},
)
TEACHER: dict[str, Any] = {
    "http": {
        "url": "https://large.example.org/v1",
        "model": "large",
        "topLogprobs": 5,
        "secretRef": {"name": "hub"},
    }
}
TAUGHT: dict[str, Any] = {
    "model": {"storageUri": "pvc://models/base"},
    "datasets": [{"name": "d", "format": "Messages", "inline": {"records": [{"messages": []}]}}],
    "training": {"method": "Distillation", "teacher": {"storageUri": "hf://org/large", "secretRef": {"name": "hub"}}},
}
OTHERWISE_TAUGHT: dict[str, Any] = {**TAUGHT, "training": {"method": "Distillation", "teacher": TEACHER}}
OTHERWISE_REWARDED = tuple({**REWARDED, "training": {"method": "PPO", "rewards": [reward]}} for reward in REWARDS)

SCRIPT: dict[str, Any] = {
    "image": "example.org/own:1",
    "command": ["python", "train.py"],
    "args": ["--fast"],
}
MAKES_ROOM: dict[str, Any] = {
    **SCRIPT,
    "placement": {"yieldFrom": [{"deployment": "vllm", "namespace": "serving"}, {"deployment": "ollama"}]},
}

FETCHED_SCRIPT: dict[str, Any] = {
    **SCRIPT,
    "storage": {
        "workspace": {
            "script": {"url": "https://files.example.org/train.py", "sha256": "0" * 64, "secretRef": {"name": "git"}}
        }
    },
}

WORKSPACE: dict[str, Any] = {
    **SCRIPT,
    "storage": {
        "workspace": {
            "git": {
                "url": "https://git.example.org/team/app.git",
                "ref": "main",
                "secretRef": {"name": "git"},
                "submodules": True,
                "sparsePaths": ["src"],
            }
        }
    },
}

PHASED: dict[str, Any] = {
    "model": {"storageUri": "hf://org/name"},
    "datasets": [{"name": "d", "format": "Messages", "inline": {"records": [{"messages": []}]}}],
    "phases": [
        {
            "name": "first",
            "datasets": ["d"],
            "activeDeadlineSeconds": 7200,
            "expectedDurationSeconds": 3600,
            "training": {k: v for k, v in FINE_TUNING["training"].items() if k != "earlyStopping"},
        },
        {"name": "second", "training": {"numTrainEpochs": 0.5}},
    ],
    "runPhases": ["second"],
}

TRM: dict[str, Any] = {
    "model": {
        "trm": {
            "lLayers": 2,
            "hCycles": 3,
            "lCycles": 6,
            "hiddenSize": 128,
            "numHeads": 4,
            "expansion": 4,
            "mixer": "MLP",
            "registers": 1,
            "maxIterations": 8,
        }
    },
    "datasets": [
        {
            "name": "d",
            "puzzle": {
                "kind": "Sudoku",
                "storageUri": "pvc://claim/sudoku.csv",
                "size": 9,
                "count": 100,
                "seed": 1,
                "augmentations": 10,
            },
            "split": {"eval": 0.1},
        }
    ],
    "training": {
        "method": "TRM",
        "numTrainEpochs": 50000,
        "trm": {
            "loss": "StableMax",
            "haltExploration": 0.1,
            "ema": 0.99,
            "puzzleLearningRate": 0.01,
            "depthCurriculum": True,
            "augment": True,
            "compile": False,
            "task": "Auto",
            "experimental": True,
        },
    },
    "evaluation": {"baselines": ["Majority", "NearestNeighbor"], "minimumGain": 0.05},
    "exports": [
        {
            "name": "tell",
            "configMap": {"name": "agent", "data": {"a": "{model}"}, "rolloutRestart": {"deployment": "agent"}},
        }
    ],
}
SERVED: dict[str, Any] = {
    **SCRATCH,
    "exports": [{"name": "serve", "kserve": {"inferenceService": "agent", "storageUri": "s3://b/{agent}/{version}"}}],
}

TRM_TEXT: dict[str, Any] = {
    "model": {"trm": {}},
    "datasets": [
        {"name": "d", "format": "TRM", "inline": {"records": [{"problem": "a", "solution": "b"}]}},
    ],
    "training": {"method": "TRM"},
}

GAIN: dict[str, Any] = {"gates": [{"metric": "loss", "maximum": 9, "minimumGain": 0}]}
HELD_OUT: dict[str, Any] = {**SCRATCH, "datasets": [{**TEXT, "split": {"eval": 0.1}}]}
CHAMPIONS: tuple[dict[str, Any], ...] = ({"baseModel": {}}, {"storageUri": "pvc://models/last"}, {"run": "last-week"})
JUDGED = tuple({**HELD_OUT, "evaluation": {**GAIN, "compareWith": champion}} for champion in CHAMPIONS)
CHAMPION: dict[str, Any] = {
    "model": {"storageUri": "hf://org/name"},
    "datasets": [TEXT, {"name": "e", "role": "Eval", "inline": {"text": "hello"}}],
    "training": {"method": "SFT"},
    "tracking": {"mlflow": {"trackingUri": "https://mlflow.example.org"}},
    "evaluation": {
        "metrics": ["loss", "exactMatch"],
        "maxNewTokens": 64,
        "maxAnswers": 100,
        "baselineAnswers": True,
        "harness": {"tasks": ["pick"], "includeFrom": "pvc://tasks/pods", "limit": 10},
        "gates": [{"metric": "exactMatch", "minimum": 0.1, "minimumGain": 0.05, "confidence": 0.9}],
        "compareWith": {
            "mlflow": {"model": "agent", "alias": "champion", "noChampion": "Promote"},
            "secretRef": {"name": "store"},
        },
    },
}

STOPPING = {name: FINE_TUNING["training"][name] for name in ("evalSteps", "earlyStopping")}
PHASED_BY_EPOCHS: dict[str, Any] = {
    **SCRATCH,
    "phases": [
        {"name": "first", "training": {**STOPPING, "numTrainEpochs": 0.5, "method": "Pretrain", "attention": "SDPA"}}
    ],
}

PHASED_TAUGHT = tuple(
    {**one, "phases": [{"name": "first", "training": copy.deepcopy(one["training"])}]}
    for one in (TAUGHT, OTHERWISE_TAUGHT)
)
PHASED_REWARDED: dict[str, Any] = {**REWARDED, "phases": [{"name": "first", "training": REWARDED["training"]}]}

WINDOW = {"days": 30, "until": "2026-11-01T02:00:00Z"}
SOURCES: tuple[dict[str, Any], ...] = (
    {
        "code": {
            "url": "https://git.example.org/a.git",
            "ref": "main",
            "path": "src",
            "include": ["**/*.cs"],
            "exclude": ["**/test/**"],
            "maxFileBytes": 1000,
            "maxTotalBytes": 1000000,
            "secrets": "Redact",
        }
    },
    {"code": {"storageUri": "pvc://claim/src"}},
    {
        "prometheus": {
            "url": "http://prometheus.example.org:9090",
            "queries": ["up"],
            "window": WINDOW,
            "stepSeconds": 60,
            "spanHours": 24,
            "metadata": True,
        }
    },
    {
        "loki": {
            "url": "http://loki.example.org:3100",
            "queries": ['{a="b"}'],
            "window": WINDOW,
            "spanMinutes": 60,
            "pageSize": 1000,
        }
    },
    {"tempo": {"url": "http://tempo.example.org:3200", "query": "{}", "window": WINDOW, "maxTraces": 10}},
    {"runbook": {"url": "https://git.example.org/a.git", "ref": "main", "include": ["**/RUNBOOK.md"]}},
    {"runbook": {"storageUri": "pvc://claim/docs/"}},
    {
        "traces": {
            "database": {"table": "s.traces", "idColumn": "id", "timeColumn": "created_at", "payloadColumn": "payload"},
            "exportFormat": "TRM",
        },
        "secretRef": {"name": "s"},
    },
    {
        "traces": {
            "url": "http://traces.example.org:8000",
            "datasetName": "d",
            "datasetVersion": "v1",
            "filters": {"source": "a"},
            "limit": 1000,
            "selectionStrategy": "Latest",
            "seed": 1,
            "exportFormat": "TrainingExample",
        }
    },
    {"manifest": {"storageUri": "s3://bucket/set/manifest.json", "include": ["train*"]}},
)

COLLECTED = tuple({**SCRATCH, "datasets": [{"name": "d", **source}]} for source in SOURCES)

COMPLETE = (
    FINE_TUNING,
    SCRATCH,
    *JUDGED,
    CHAMPION,
    *({**SCRATCH, "exports": exports} for exports in (*formats.EACH, *sinks.EACH)),
    ADAPTED,
    CONTINUED,
    SCRATCH_WITH_TOKENIZER,
    REWARDED,
    *OTHERWISE_REWARDED,
    TAUGHT,
    OTHERWISE_TAUGHT,
    SERVED,
    SCRIPT,
    MAKES_ROOM,
    WORKSPACE,
    FETCHED_SCRIPT,
    PHASED,
    PHASED_BY_EPOCHS,
    PHASED_REWARDED,
    *PHASED_TAUGHT,
    TRM,
    TRM_TEXT,
    *COLLECTED,
)

TEMPLATE: dict[str, Any] = {
    "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
    "spec": SCRATCH,
}

BY_CLOCK: dict[str, Any] = {
    "schedule": "0 4 1 * *",
    "timeZone": "Europe/Berlin",
    "suspend": False,
    "concurrencyPolicy": "Forbid",
    "startingDeadlineSeconds": 300,
    "catchUp": "RunOnce",
    "minIntervalSeconds": 3600,
    "skipIfUnchanged": True,
    "successfulRunsHistoryLimit": 3,
    "failedRunsHistoryLimit": 3,
    "triggers": [
        {
            "name": "code",
            "pollSeconds": 60,
            "cooldownSeconds": 60,
            "gitPath": {
                "url": "https://git.example.org/a.git",
                "ref": "main",
                "path": "docs",
                "secretRef": {"name": "git"},
            },
        }
    ],
    "variants": [{"name": "x", "labels": {"agent": "x"}, "patch": {"training": {"seed": 1}}}],
    "variantPolicy": "Sequential",
    "template": TEMPLATE,
}

BY_INTERVAL: dict[str, Any] = {
    "intervalSeconds": 3600,
    "triggers": [
        {
            "name": "slow",
            "prometheus": {
                "url": "http://prometheus.example.org:9090",
                "query": "up",
                "comparison": "LessThan",
                "threshold": 1.5,
                "forSeconds": 60,
                "secretRef": {"name": "s"},
            },
        }
    ],
    "template": TEMPLATE,
}

BY_ALIAS: dict[str, Any] = {
    "triggers": [
        {
            "name": "drift",
            "mlflowMetric": {
                "trackingUri": "http://mlflow.example.org",
                "model": "m",
                "alias": "champion",
                "metric": "accuracy",
                "comparison": "LessThan",
                "threshold": 0.8,
                "missing": "Fire",
                "secretRef": {"name": "s"},
            },
        }
    ],
    "template": TEMPLATE,
}

BY_STAGE: dict[str, Any] = {
    "triggers": [
        {
            "name": "stage",
            "mlflowMetric": {
                "trackingUri": "http://mlflow.example.org",
                "model": "m",
                "stage": "Production",
                "metric": "accuracy",
                "comparison": "LessThan",
                "threshold": 0.8,
            },
        }
    ],
    "template": TEMPLATE,
}

BY_DATA: dict[str, Any] = {
    "triggers": [
        {
            "name": "data",
            "dataset": {"url": "https://data.example.org/x.jsonl", "minimumChange": 0.1, "secretRef": {"name": "s"}},
        }
    ],
    "template": TEMPLATE,
}

SWEEP: dict[str, Any] = {
    "template": {
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "b"}},
        "spec": {
            **SCRATCH,
            "training": {"method": "Pretrain", "maxSteps": 100, "evalSteps": 5},
            "datasetUpload": {"storageUri": "s3://bucket/datasets", "secretRef": {"name": "store"}},
        },
    },
    "parameters": [
        {
            "name": "training.learningRate",
            "double": {"min": 0.00001, "max": 0.1, "log": True, "points": 5},
        }
    ],
    "objective": {"metric": "eval_loss", "direction": "Minimize", "goal": 0.5},
    "algorithm": "TPE",
    "seed": 1,
    "numTrials": 20,
    "parallelTrials": 2,
    "maxFailedTrials": 3,
    "suspend": False,
    "earlyStopping": {"asha": {"minimumSteps": 10, "reductionFactor": 2, "rungs": 2}},
}
WHOLE_NUMBERS = {
    **SWEEP,
    "parameters": [{"name": "training.warmupSteps", "int": {"min": 1, "max": 100, "log": True, "points": 5}}],
}
CHOICES = {**SWEEP, "parameters": [{"name": "training.packing", "choice": {"values": [True, False]}}]}

COMPLETE_SWEEPS = (SWEEP, WHOLE_NUMBERS, CHOICES)
COMPLETE_SCHEDULES = (BY_CLOCK, BY_INTERVAL, BY_ALIAS, BY_STAGE, BY_DATA)
