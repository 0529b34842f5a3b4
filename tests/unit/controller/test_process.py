"""The operator as it runs in a pod: a process of its own, against an API server on loopback."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.ports import free_port
from tests.unit.controller.fake_clock import eventually
from tests.unit.controller.fake_kube import FakeKube
from trainyard.api.compatibility import SCHEMA_ANNOTATION
from trainyard.api.crd import training_run_crd
from trainyard.controller.__main__ import main
from trainyard.controller.kube.resources import CRDS, TRAININGRUNS

SPEC = {
    "model": {
        "scratch": {"architecture": "llama", "config": {"hidden_size": 64}, "tokenizer": {"trainVocabSize": 500}}
    },
    "datasets": [{"name": "text", "format": "Text", "inline": {"text": "hello"}}],
    "training": {"method": "Pretrain", "maxSteps": 10},
}

COMMAND = ("-m", "trainyard.controller")
IN_A_HURRY = """
import asyncio, sys
from trainyard.controller import __main__, clock
async def sleep(self, seconds):
    await asyncio.sleep(seconds / 10)
clock.SystemClock.sleep = sleep
sys.exit(__main__.main())
"""
"""The same with shorter pauses, where a test would only wait for the next look at the lease or at all runs."""


class OperatorProcess:
    """`python -m trainyard.controller` with its own ports."""

    def __init__(self, kubeconfig: Path, *, command: tuple[str, ...] = COMMAND, **environ: str):
        self.command = command
        self.health, self.metrics, self.receiver, self.page = (free_port() for _ in range(4))
        self.environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "KUBECONFIG": str(kubeconfig),
            "TRAINYARD_TRAINER_IMAGE": "registry/trainer:1",
            "TRAINYARD_OPERATOR_NAMESPACE": "trainyard-system",
            "TRAINYARD_IDENTITY": "pod-1",
            "TRAINYARD_HEALTH_LISTEN_PORT": str(self.health),
            "TRAINYARD_METRICS_LISTEN_PORT": str(self.metrics),
            "TRAINYARD_RECEIVER_LISTEN_PORT": str(self.receiver),
            "TRAINYARD_PAGE_LISTEN_PORT": str(self.page),
            "TRAINYARD_RECEIVER_URL": f"http://127.0.0.1:{self.receiver}",
        } | environ
        self.lines: list[str] = []
        self.process: asyncio.subprocess.Process | None = None
        self.reader: asyncio.Task[None] | None = None

    async def start(self) -> "OperatorProcess":
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self.command, env=self.environ, cwd="/", stderr=asyncio.subprocess.PIPE
        )
        self.reader = asyncio.ensure_future(self.read())
        return self

    async def read(self) -> None:
        assert self.process is not None
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode())

    async def ready(self) -> "OperatorProcess":
        async with asyncio.timeout(60):
            while (await self.get(self.health, "/readyz"))[0] != 200:
                assert self.process is not None
                assert self.process.returncode is None, "".join(self.lines)
                await asyncio.sleep(0.05)
        return self

    async def get(self, port: int, path: str) -> tuple[int, str]:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}{path}") as response:
                return response.status, await response.text()
        except aiohttp.ClientError:
            return 0, ""

    async def ended(self) -> int:
        assert self.process is not None
        assert self.reader is not None
        code = await asyncio.wait_for(self.process.wait(), 60)
        await self.reader
        return code

    async def signal(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended()

    def messages(self) -> list[str]:
        return [json.loads(line)["message"] for line in self.lines]


@pytest.fixture
async def operator(kube: FakeKube, tmp_path: Path):
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(kube.kubeconfig())
    made: list[OperatorProcess] = []

    async def start(*, command: tuple[str, ...] = COMMAND, **environ: str) -> OperatorProcess:
        made.append(OperatorProcess(kubeconfig, command=command, **environ))
        return await made[-1].start()

    yield start
    for each in made:
        if each.process is not None and each.process.returncode is None:
            each.process.kill()
            await each.ended()


def apply_run(kube: FakeKube, name: str) -> dict:
    return kube.put(
        "trainingruns", {"metadata": {"namespace": "team", "name": name}, "spec": json.loads(json.dumps(SPEC))}
    )


def lease_holder(kube: FakeKube) -> str:
    holder: str = kube.objects["leases"]["trainyard-system", "trainyard-operator"]["spec"]["holderIdentity"]
    return holder


async def test_a_run_becomes_a_job_and_sigterm_ends_it_all_in_order(kube: FakeKube, operator):
    apply_run(kube, "before")
    process = await (await operator()).ready()
    apply_run(kube, "after")
    await eventually(lambda: {name for _, name in kube.objects["jobs"]} == {"before-prepare-1", "after-prepare-1"}, 20)
    assert lease_holder(kube) == "pod-1"
    assert await process.get(process.health, "/healthz") == (200, "ok\n")
    _, metrics = await process.get(process.metrics, "/metrics")
    assert "trainyard_leader 1.0" in metrics
    assert 'trainyard_api_requests_total{code="201",resource="jobs",verb="create"} 2.0' in metrics
    assert await process.signal(signal.SIGTERM) == 0
    assert lease_holder(kube) == ""
    assert process.messages()[-2:] == ["stopping", "stopped"]


async def test_a_sweep_becomes_a_run_and_that_a_job(kube: FakeKube, operator):
    spec = {
        "template": {"spec": SPEC},
        "objective": {"metric": "loss"},
        "parameters": [{"name": "training.learningRate", "choice": {"values": [0.1, 0.2]}}],
        "algorithm": "Grid",
    }
    process = await (await operator()).ready()
    kube.put(
        "trainingsweeps", {"metadata": {"namespace": "team", "name": "tune"}, "spec": json.loads(json.dumps(spec))}
    )
    await eventually(lambda: {name for _, name in kube.objects["jobs"]} == {"tune-1-prepare-1"}, 20)
    assert kube.objects["trainingruns"]["team", "tune-1"]["spec"]["training"]["learningRate"] == 0.1
    await eventually(
        lambda: kube.objects["trainingsweeps"]["team", "tune"].get("status", {}).get("summary") == "0/2", 20
    )
    _, metrics = await process.get(process.metrics, "/metrics")
    assert "trainyard_sweeps 1.0" in metrics
    assert 'trainyard_sweep_trials_total{result="created"} 1.0' in metrics


async def test_an_idle_operator_writes_nothing_but_its_lease(kube: FakeKube, operator):
    apply_run(kube, "alpha")
    await (await operator(command=("-c", IN_A_HURRY), TRAINYARD_RESYNC_SECONDS="10")).ready()
    await eventually(lambda: kube.objects["trainingruns"]["team", "alpha"].get("status", {}).get("startTime"), 20)
    kube.requests.clear()
    # Through a whole resync: it lists the runs, looks at each one and its children, and has nothing to say.
    await eventually(lambda: {"GET trainingruns", "GET jobs"} <= set(kube.requests), 40)
    assert set(kube.writes()) <= {"PATCH leases"}


async def test_killed_and_started_again_it_makes_nothing_twice(kube: FakeKube, operator):
    first = await (await operator()).ready()
    for number in range(20):
        apply_run(kube, f"run-{number}")
    await eventually(lambda: len(kube.objects["jobs"]) >= 5, 20)
    assert await first.signal(signal.SIGKILL) == -signal.SIGKILL
    await (await operator()).ready()
    await eventually(lambda: len(kube.objects["jobs"]) == 20, 30)
    assert {name for _, name in kube.objects["jobs"]} == {f"run-{number}-prepare-1" for number in range(20)}
    uids = [secret["metadata"]["uid"] for secret in kube.objects["secrets"].values()]
    assert len(uids) == 21  # one for each run, and the key of their tokens


async def test_a_second_operator_waits_and_is_alive_but_not_ready(kube: FakeKube, operator):
    first = await (await operator()).ready()
    second = await operator(TRAINYARD_IDENTITY="pod-2")
    await eventually(lambda: any("waiting for the lease" in line for line in second.lines), 30)
    assert await second.get(second.health, "/healthz") == (200, "ok\n")
    assert (await second.get(second.health, "/readyz"))[0] == 503
    assert await first.signal(signal.SIGTERM) == 0
    await second.ready()
    assert lease_holder(kube) == "pod-2"


async def test_a_lost_lease_ends_the_process_at_once(kube: FakeKube, operator):
    process = await (await operator(command=("-c", IN_A_HURRY))).ready()
    lease = kube.objects["leases"]["trainyard-system", "trainyard-operator"]
    lease["spec"]["holderIdentity"] = "pod-2"
    kube.put("leases", lease)
    assert await process.ended() == 1
    assert any("taken by 'pod-2'" in message for message in process.messages())


async def test_without_the_crd_it_says_how_to_install_it(tmp_path: Path, operator, kube: FakeKube):
    del kube.resources[TRAININGRUNS.plural]
    process = await operator()
    assert await process.ended() == 1
    assert any("install the CRDs first" in message for message in process.messages())


async def test_under_an_older_crd_it_does_not_start_and_names_what_is_missing(operator, kube: FakeKube):
    older = training_run_crd()
    version = older["spec"]["versions"][0]
    del version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["restarts"]
    older["metadata"]["annotations"][SCHEMA_ANNOTATION] = "0123456789abcdef"
    kube.resources[CRDS.plural] = CRDS
    kube.objects.setdefault(CRDS.plural, {})
    kube.put(CRDS.plural, older)
    process = await operator()
    assert await process.ended() == 1
    assert any("is older than this operator: it lacks status.restarts," in message for message in process.messages())


def test_wrong_settings_are_all_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name, value in {"TRAINYARD_TRAINER_IMAGE": "", "TRAINYARD_WORKERS": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main() == 1
    text = capsys.readouterr().err
    assert "TRAINYARD_WORKERS='0': Input should be greater than or equal to 1" in text
    assert "TRAINYARD_TRAINER_IMAGE is not set; Image of the steps" in text
    assert "Traceback" not in text


async def test_a_report_moves_the_status(kube: FakeKube, operator):
    process = await (await operator(TRAINYARD_PROGRESS_INTERVAL_SECONDS="1")).ready()
    uid = apply_run(kube, "alpha")["metadata"]["uid"]
    await eventually(lambda: ("team", "alpha-trainyard") in kube.objects["secrets"], 20)
    token = kube.objects["secrets"]["team", "alpha-trainyard"]["stringData"]["token"]
    record = {
        "runUid": uid,
        "step": "prepare",
        "attempt": 1,
        "sequence": 1,
        "time": "2026-01-01T00:00:00Z",
        "phase": "prepare",
    }
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http:
        url = f"http://127.0.0.1:{process.receiver}/v1/runs/team/alpha/{uid}/progress"
        async with http.post(url, json=record) as response:
            assert response.status == 200
        async with http.post(url, json=record, headers={"Authorization": "Bearer wrong"}) as response:
            assert response.status == 401
    run = kube.objects["trainingruns"]["team", "alpha"]
    await eventually(lambda: run.get("status", {}).get("trainerStatus", {}).get("phase") == "prepare", 20)
