"""The operator as a process: what a script has posted is told after a restart, and after the run's end."""

import asyncio
import base64
import os
from pathlib import Path

import pytest

from tests.unit.controller.fake_clock import eventually
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.test_process import OperatorProcess
from tests.unit.lab.standalone_trainer import SAMPLE, LabClient
from trainyard.api.crd import training_run_crd
from trainyard.controller.reports.tokens import RunTokens


@pytest.fixture
async def kube():
    served = FakeKube()
    await served.start()
    yield served
    await served.stop()


async def test_what_was_posted_is_read_back_after_a_restart(kube: FakeKube, tmp_path: Path):
    kube.put("customresourcedefinitions", training_run_crd())
    run = kube.put(
        "trainingruns",
        {"metadata": {"namespace": "team", "name": "alpha"}, "spec": {"image": "i", "command": ["train"]}},
    )
    uid = run["metadata"]["uid"]
    (tmp_path / "kubeconfig").write_text(kube.kubeconfig())
    first = await OperatorProcess(tmp_path / "kubeconfig").start()
    second = OperatorProcess(tmp_path / "kubeconfig")
    try:
        await first.ready()
        await eventually(lambda: ("team", "alpha-train-1") in kube.objects["jobs"], 20)
        secret = kube.objects["secrets"]["trainyard-system", "trainyard-receiver"]["data"]["key"]
        env = {
            "METRICS_API_URL": f"http://127.0.0.1:{first.receiver}/api/training/local/metrics?step=train&attempt=1",
            "JOB_ID": uid,
            "JOB_TOKEN": RunTokens(base64.b64decode(secret)).for_job(("team", "alpha"), uid),
        }
        client = LabClient(env)
        assert await asyncio.to_thread(client.post_metrics, SAMPLE) == 200
        assert await first.signal(15) == 0
        assert ("team", "alpha-history") in kube.objects["configmaps"]
        await (await second.start()).ready()
        told = await asyncio.to_thread(client.get_metrics, f"http://127.0.0.1:{second.receiver}")
        assert told == (200, {"job_id": uid, "metrics": [SAMPLE]})
    finally:
        for process in (first, second):
            if process.process is not None and process.process.returncode is None:
                process.process.kill()
                await process.ended()
    assert not any(env["JOB_TOKEN"] in line for line in (*first.lines, *second.lines)), os.linesep.join(first.lines)
