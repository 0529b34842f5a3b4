"""Runs as the operator leaves them, for tests of what is shown of them."""

from typing import Any

from tests.unit.cli.fake_cluster import FakeCluster


def condition(kind: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def training(cluster: FakeCluster) -> None:
    """`runbook`: in its second attempt, with a checkpoint."""
    cluster.run(
        "runbook",
        state="Training",
        message="training on arcanine",
        startTime="2026-03-01T12:00:10Z",
        conditions=[condition("Ready", "False", "Training"), condition("Reconciling", "True", "Training")],
        restarts=1,
        summary={
            "method": "SFT",
            "model": "SmolLM2-135M-Instruct",
            "progress": "48%",
            "step": "144/300",
            "loss": "2.1034",
            "eta": "1m20s",
            "node": "arcanine",
        },
        trainerStatus={
            "progressPercentage": 48,
            "metrics": [{"name": "loss", "value": "2.1034"}, {"name": "learning_rate", "value": "8e-05"}],
            "lastUpdatedTime": "2026-03-01T12:09:58Z",
        },
        checkpoint={"step": 100, "path": "runbook-01234567/checkpoints/step-00000100", "time": "2026-03-01T12:07:30Z"},
        dataset={"records": 412, "tokens": 90311, "splits": {"train": 371, "eval": 41}},
        effective={"device": "cuda", "precision": "bf16", "perDeviceTrainBatchSize": "8"},
        steps=[
            {
                "name": "prepare",
                "state": "Succeeded",
                "job": "runbook-prepare-1",
                "attempts": [
                    {
                        "number": 1,
                        "state": "Succeeded",
                        "reason": "Succeeded",
                        "node": "forge",
                        "startTime": "2026-03-01T12:00:10Z",
                        "completionTime": "2026-03-01T12:00:42Z",
                    }
                ],
            },
            {
                "name": "train",
                "state": "Running",
                "job": "runbook-train-2",
                "attempts": [
                    {
                        "number": 1,
                        "state": "Failed",
                        "reason": "Disrupted",
                        "counted": False,
                        "node": "arcanine",
                        "message": "evicted: the node was low on memory",
                        "startTime": "2026-03-01T12:00:42Z",
                        "completionTime": "2026-03-01T12:08:00Z",
                        "lastStep": 112,
                    },
                    {
                        "number": 2,
                        "state": "Running",
                        "node": "arcanine",
                        "startTime": "2026-03-01T12:08:03Z",
                        "firstStep": 100,
                    },
                ],
            },
            {"name": "evaluate", "state": "Waiting"},
        ],
    )
    cluster.pod("train", 2, log=log("step 100 of 300", "step 144 of 300, loss 2.1034"))


def log(*lines: str) -> str:
    """As the kubelet gives it with timestamps."""
    return "".join(f"2026-03-01T12:0{number}:00.000000000Z {line}\n" for number, line in enumerate(lines, start=1))


def failed(cluster: FakeCluster) -> None:
    """`broken`: its data were refused."""
    cluster.run(
        "broken",
        state="Failed",
        message="InvalidData: dataset runbook, line 7: messages is empty",
        startTime="2026-03-01T12:00:10Z",
        completionTime="2026-03-01T12:00:40Z",
        conditions=[condition("Ready", "False", "InvalidData"), condition("Failed", "True", "InvalidData")],
        summary={"method": "SFT", "model": "SmolLM2-135M-Instruct"},
        steps=[
            {
                "name": "prepare",
                "state": "Failed",
                "job": "broken-prepare-1",
                "attempts": [
                    {
                        "number": 1,
                        "state": "Failed",
                        "reason": "InvalidData",
                        "counted": True,
                        "node": "forge",
                        "exitCode": 65,
                        "message": "dataset runbook, line 7: messages is empty",
                        "startTime": "2026-03-01T12:00:10Z",
                        "completionTime": "2026-03-01T12:00:40Z",
                        "lastLogLines": ["reading runbook.jsonl", "line 7: messages is empty"],
                    }
                ],
            }
        ],
        failure={
            "reason": "InvalidData",
            "step": "prepare",
            "message": "dataset runbook, line 7: messages is empty",
            "hint": "correct the record, or leave it out with filters",
        },
    )


def succeeded(cluster: FakeCluster) -> None:
    """`served`: with gates, exports and a promotion."""
    cluster.run(
        "served",
        state="Succeeded",
        message="all steps are done",
        startTime="2026-03-01T11:00:00Z",
        completionTime="2026-03-01T11:31:00Z",
        conditions=[
            condition("Ready", "True", "Succeeded"),
            condition("Complete", "True", "Succeeded"),
            condition("GatesPassed", "True", "Passed"),
        ],
        summary={
            "method": "SFT",
            "model": "functiongemma-270m-it",
            "progress": "100%",
            "step": "900/900",
            "loss": "0.4120",
        },
        trainerStatus={"progressPercentage": 100, "metrics": [{"name": "loss", "value": "0.4120"}]},
        evaluation={
            "metrics": [{"name": "loss", "value": "0.4482"}, {"name": "exactMatch", "value": "0.83"}],
            "baseline": [{"name": "loss", "value": "1.9"}],
            "gates": [
                {
                    "metric": "exactMatch",
                    "verdict": "Promote",
                    "value": "0.83",
                    "gain": "0.06",
                    "interval": ["0.01", "0.11"],
                }
            ],
        },
        exports=[
            {"name": "store", "target": "s3", "state": "Succeeded", "uri": "s3://models/sre/v7/", "version": "7"},
            {"name": "serve", "target": "ollama", "state": "Failed", "message": "ollama.lab does not answer"},
        ],
        promotions=[{"version": "7", "time": "2026-03-01T11:31:00Z", "gain": "0.06", "reason": "gates passed"}],
        outputs={"model": "served-01234567/model"},
    )


def waiting(cluster: FakeCluster) -> None:
    """`queued`: no node can take its pod."""
    cluster.run(
        "queued",
        state="Pending",
        message="waiting for a node: 0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint",
        conditions=[condition("Ready", "False", "Unschedulable"), condition("Reconciling", "True", "Unschedulable")],
        summary={"method": "DPO", "model": "SmolLM2-135M-Instruct"},
        steps=[
            {
                "name": "train",
                "state": "Running",
                "job": "queued-train-1",
                "attempts": [{"number": 1, "state": "Running"}],
            }
        ],
    )
    cluster.put(
        "/api/v1/namespaces/lab/events/e1",
        {
            "metadata": {"name": "e1", "namespace": "lab"},
            "type": "Warning",
            "reason": "FailedScheduling",
            "message": "0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint",
            "involvedObject": {"kind": "Pod", "name": "queued-train-1"},
            "lastTimestamp": "2026-03-01T12:09:00Z",
        },
    )
