"""The lab's contract, item by item, with a client that was written from its description alone."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.controller.runs.world import UID, manifest
from tests.unit.lab.standalone_trainer import SAMPLE, LabClient, train
from trainyard.api.manifest import parse_run
from trainyard.controller.clock import SystemClock
from trainyard.controller.manifests.config import config_secret
from trainyard.controller.manifests.job import build_job
from trainyard.controller.manifests.metadata import Defaults, RunRef
from trainyard.controller.ports import Served
from trainyard.controller.reports.curves import Table
from trainyard.controller.reports.history import Key
from trainyard.controller.reports.lab_routes import LabRoutes
from trainyard.controller.reports.memory import HistoryMemory
from trainyard.controller.reports.progress_store import ProgressStore
from trainyard.controller.reports.receiver import BODY_LIMIT, Receiver
from trainyard.controller.reports.tokens import RunTokens

TOKENS = RunTokens(b"k" * 32)
KEY = ("lab", "tiny")


class Nothing:
    """A keeper with nothing."""

    async def read(self, key: Key, uid: str) -> Table | None:
        return Table()


@dataclass
class Lab:
    """The operator's receiver on loopback, and what it has taken."""

    origin: str = ""
    store: ProgressStore = field(default_factory=ProgressStore)
    said: list[Any] = field(default_factory=list)
    results: list[str] = field(default_factory=list)
    memory: HistoryMemory = field(default_factory=lambda: HistoryMemory(clock=SystemClock(), kept=Nothing()))

    def environment(self, *, attempt: int = 1, **spec: Any) -> dict[str, str]:
        """What the pod of a training with a script of its own would have."""
        return pod_environment(self.origin, attempt=attempt, **spec)


def run_ref(**spec: Any) -> RunRef:
    raw = manifest(image="i", command=["python", "standalone_trainer.py"], **spec)
    raw["metadata"]["labels"] = {"trainyard.dev/user": "ada"}
    return RunRef.of(raw, parse_run(raw))


def pod_environment(receiver: str, *, attempt: int = 1, **spec: Any) -> dict[str, str]:
    """The variables, with those from Secrets looked up, as the kubelet does it."""
    run = run_ref(**spec)
    secret = config_secret(run, token=TOKENS.for_run(KEY, UID))
    job = build_job(run, step="train", attempt=attempt, defaults=Defaults("i", receiver_url=receiver))
    found = {}
    for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]:
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        elif (ref := entry["valueFrom"]["secretKeyRef"])["name"] == secret["metadata"]["name"]:
            found[entry["name"]] = secret["stringData"][ref["key"]]
    return found


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    made = Lab()
    routes = LabRoutes(
        store=made.store,
        tokens=TOKENS,
        clock=SystemClock(),
        on_report=lambda key, uid, accepted: None,
        on_points=made.memory.add,
        on_alert=lambda key, uid, alert: made.said.append((key, uid, alert)),
        read=made.memory.points,
        on_result=lambda wire_format, result: made.results.append(result),
    )
    receiver = Receiver(store=made.store, tokens=TOKENS, on_report=lambda *_: None, more=[routes.add_to])
    served = Served(receiver.application(), port=0, host="127.0.0.1")
    made.origin = f"http://127.0.0.1:{await served.start()}"
    yield made
    await served.stop()


async def test_003_10_a_whole_training_of_the_labs_own_script_arrives(lab: Lab):
    code = await asyncio.to_thread(train, lab.environment(), steps=100, logging_steps=10)
    assert code == 0
    assert [point.step for point in (await lab.memory.points(KEY, UID)).points] == list(range(10, 101, 10))
    assert [alert.type for _, _, alert in lab.said] == ["job_started", "job_completed"]
    held = lab.store.get(UID)
    assert held is not None
    assert (held.step, held.attempt, held.step_number, held.metrics["loss"]) == ("train", 1, 100, 0.02)


def test_003_11_to_20_the_pod_has_the_labs_variables():
    env = pod_environment(
        "http://receiver:8080",
        model={"storageUri": "hf://meta-llama/Llama-2-7b@main", "secretRef": {"name": "hub"}},
        training={"method": "CPT", "maxSteps": 10},
        datasets=[{"name": "d", "storageUri": "https://host/data.jsonl"}],
    )
    assert env["JOB_ID"] == UID
    assert env["USER_ID"] == "ada"
    assert env["MODEL_NAME"] == "meta-llama/Llama-2-7b"
    assert env["DATASET_URL"] == "https://host/data.jsonl"
    assert env["METRICS_API_URL"].startswith("http://receiver:8080/api/training/local/metrics")
    assert env["ALERT_API_URL"] == "http://receiver:8080/api/alerts/trigger"
    assert env["JOB_TOKEN"] == TOKENS.for_job(KEY, UID) == env["INTERNAL_API_KEY"]


def test_003_12_18_20_secrets_stand_in_no_job():
    run = run_ref(
        model={"storageUri": "hf://a/b", "secretRef": {"name": "hub"}}, training={"method": "CPT", "maxSteps": 10}
    )
    job = build_job(run, step="train", attempt=1, defaults=Defaults("i", receiver_url="http://receiver"))
    env = {e["name"]: e for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    for name, secret in (("JOB_TOKEN", "tiny-trainyard"), ("INTERNAL_API_KEY", "tiny-trainyard"), ("HF_TOKEN", "hub")):
        assert env[name]["valueFrom"]["secretKeyRef"]["name"] == secret
    assert TOKENS.for_run(KEY, UID) not in json.dumps(job)


def test_003_19_nothing_of_another_service_is_set_by_default_and_the_users_own_wins():
    own = [
        {"name": "METRICS_API_URL", "value": "https://lab.example.org/m"},
        {"name": "SUPABASE_SERVICE_KEY", "value": "x"},
    ]
    env = pod_environment("http://receiver", podTemplate={"env": own})
    assert env["METRICS_API_URL"] == "https://lab.example.org/m"
    assert {name for name in pod_environment("http://receiver") if "SUPABASE" in name} == set()


def test_003_26_without_a_receiver_no_address_is_set_and_nothing_is_posted():
    env = pod_environment("")
    assert not env.keys() & {"METRICS_API_URL", "ALERT_API_URL", "INTERNAL_API_KEY"}
    client = LabClient(env)
    assert (client.post_metrics(SAMPLE), client.trigger_alert("job_started"), client.failures) == (0, 0, [])


async def test_003_21_to_24_the_descriptions_own_example_comes_back_as_it_was_sent(lab: Lab):
    client = LabClient(lab.environment())
    assert await asyncio.to_thread(client.post_metrics, SAMPLE) == 200
    status, told = await asyncio.to_thread(client.get_metrics, lab.origin)
    assert status == 200
    assert told == {"job_id": UID, "metrics": [SAMPLE]}
    held = lab.store.get(UID)
    assert held is not None
    assert held.metrics["loss"] == 0.45
    assert held.epoch == 1


async def test_003_22_a_batch_is_taken_whole_and_a_fault_in_it_is_named(lab: Lab):
    client = LabClient(lab.environment())
    points = [{**SAMPLE, "step": step, "timestamp": f"2025-12-19T10:30:{step:02d}.000Z"} for step in range(1, 51)]
    assert await asyncio.to_thread(client.post_metrics, *points) == 200
    assert len((await lab.memory.points(KEY, UID)).points) == 50
    url, headers = client.metrics_api_url, {"Authorization": f"Bearer {client.job_token}"}
    wrong = {"job_id": UID, "metrics": [{"step": 1}, {"step": -2}]}
    status, told = await asyncio.to_thread(client.request, "POST", url, wrong, headers)
    assert status == 422
    assert "metrics.1.step" in told["error"]
    for body in ("text", [], {"job_id": UID}, {"job_id": UID, "metrics": "x"}, {"job_id": UID, "metrics": [None]}):
        assert (await asyncio.to_thread(client.request, "POST", url, body, headers))[0] == 422
    assert (await asyncio.to_thread(client.request, "POST", url, {"x": "y" * BODY_LIMIT}, headers))[0] == 413


async def test_003_23_what_was_not_measured_is_null_and_unknown_fields_pass(lab: Lab):
    client = LabClient(lab.environment())
    point = {"step": 7.0, "train_loss": 1.5, "eval_loss": None, "tokens_seen": 12}
    assert await asyncio.to_thread(client.post_metrics, point) == 200
    _, told = await asyncio.to_thread(client.get_metrics, lab.origin)
    (one,) = told["metrics"]
    assert one["timestamp"].endswith("Z")
    assert {name: value for name, value in one.items() if value is not None and name != "timestamp"} == {
        "step": 7,
        "train_loss": 1.5,
    }


async def test_003_25_44_a_post_to_the_address_with_the_job_in_it_is_405(lab: Lab):
    client = LabClient(lab.environment())
    url = f"{lab.origin}/api/training/local/{UID}/metrics"
    status, told = await asyncio.to_thread(client.request, "POST", url, {"metrics": []}, {})
    assert status == 405
    assert "/api/training/local/metrics" in told["error"]
    status, _ = await asyncio.to_thread(client.request, "GET", f"{lab.origin}/api/training/local/metrics", None, {})
    assert status == 405


async def test_003_12_the_token_is_good_for_its_own_run_alone(lab: Lab):
    env = lab.environment()
    other = "99999999-3333-4444-5555-666677778888"
    headers = {"Authorization": f"Bearer {TOKENS.for_job(KEY, other)}"}
    client = LabClient(env)
    for token in ("", "x", env["JOB_TOKEN"][:-1], TOKENS.for_run(KEY, UID), TOKENS.for_job(("lab", "else"), UID) + "x"):
        wrong = {"Authorization": f"Bearer {token}"}
        for method, url in (
            ("POST", client.metrics_api_url),
            ("GET", f"{lab.origin}/api/training/local/{UID}/metrics"),
        ):
            assert (await asyncio.to_thread(client.request, method, url, {"job_id": UID, "metrics": [SAMPLE]}, wrong))[
                0
            ] == 401
    body = {"job_id": UID, "metrics": [SAMPLE]}
    assert (await asyncio.to_thread(client.request, "POST", client.metrics_api_url, body, headers))[0] == 401
    url = f"{lab.origin}/api/training/local/{UID}/metrics"
    assert (await asyncio.to_thread(client.request, "GET", url, None, headers))[0] == 401
    assert lab.store.active() == 0


async def test_003_12_a_stranger_is_told_so_before_the_body_has_come(lab: Lab):
    port = int(lab.origin.rpartition(":")[2])
    for path in ("/api/training/local/metrics", "/api/alerts/trigger"):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 401")


async def test_003_27_28_each_of_the_six_alerts_is_taken_with_the_key_and_no_other(lab: Lab):
    client = LabClient(lab.environment())
    for kind in ("job_started", "job_completed", "job_failed", "job_cancelled", "gpu_oom", "timeout_warning"):
        assert await asyncio.to_thread(client.trigger_alert, kind, duration=3600000, progress=50.0) == 200
    assert await asyncio.to_thread(client.trigger_alert, "job_paused") == 422
    client.internal_api_key = ""
    assert await asyncio.to_thread(client.trigger_alert, "job_started") == 401
    assert len(lab.said) == 6


async def test_003_34_40_the_attempt_stands_in_the_address_and_no_job_does(lab: Lab):
    env = lab.environment(attempt=3)
    path = env["METRICS_API_URL"].removeprefix(lab.origin)
    assert UID not in path
    assert await asyncio.to_thread(LabClient(env).post_metrics, SAMPLE) == 200
    held = lab.store.get(UID)
    assert held is not None
    assert (held.step, held.attempt) == ("train", 3)


async def test_003_35_a_receiver_that_is_gone_does_not_stop_the_training():
    env = pod_environment("http://127.0.0.1:9")
    assert await asyncio.to_thread(train, env, steps=20, logging_steps=5) == 0


async def test_003_35_after_the_end_of_the_run_metrics_are_refused_for_good(lab: Lab):
    lab.store.forget(UID)
    assert await asyncio.to_thread(LabClient(lab.environment()).post_metrics, SAMPLE) == 410


def test_003_36_37_a_script_finds_its_configuration_where_the_lab_puts_it():
    job = build_job(run_ref(), step="train", attempt=1, defaults=Defaults("i"))
    spec = job["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
    assert mounts["/workspace/config.json"]["subPath"] == "run.json"
    assert mounts["/workspace/config.json"]["name"] == "trainyard-run"
    built_in = RunRef.of(manifest(), parse_run(manifest()))
    pod = build_job(built_in, step="train", attempt=1, defaults=Defaults("i"))["spec"]["template"]["spec"][
        "containers"
    ][0]
    assert "JOB_ID" not in {entry["name"] for entry in pod["env"]}, "the built-in trainer reports by itself"
    assert "/workspace/config.json" not in {mount["mountPath"] for mount in pod["volumeMounts"]}


def test_003_43_an_address_of_the_operators_own_machine_is_refused_at_apply():
    for url in (
        "http://localhost:3000/api",
        "http://127.0.0.1/x",
        "http://127.1/x",
        "https://[::1]:8/x",
        "http://169.254.169.254/",
    ):
        raw = manifest(notifications=[{"name": "lab", "url": url}])
        with pytest.raises(Exception, match="own machine"):
            parse_run(raw)
    parse_run(manifest(notifications=[{"name": "lab", "url": "http://lab.team.svc:8080/api/alerts/trigger"}]))


async def test_003_26_the_labs_ten_seconds_hold_on_both_sides(lab: Lab):
    """A post is answered in a moment: the receiver waits for nobody but the sender."""
    client = LabClient(lab.environment())
    began = time.monotonic()
    for step in range(20):
        assert await asyncio.to_thread(client.post_metrics, {**SAMPLE, "step": step}) == 200
    assert time.monotonic() - began < 5


def test_003_45_46_no_token_stands_in_what_is_logged(capsys: pytest.CaptureFixture[str]):
    from trainyard.trainer.tracking.lab import LabFollower

    follower = LabFollower.of(
        {"METRICS_API_URL": "http://user:pass@127.0.0.1:9/m?sig=abc", "JOB_TOKEN": "secret-token"}
    )
    assert follower is not None
    follower.add(1, {"loss": 1.0})
    follower.close(5)
    said = capsys.readouterr().out
    assert "metrics are posted to http://127.0.0.1:9/m" in said
    assert "did not take it" in said
    assert "secret-token" not in said
    assert "abc" not in said
    assert "pass" not in said
