"""The lab's contract, sentence by sentence, before the operator as a process.

The other side was written from the contract's description alone: plain HTTP, the lab's variables, nothing of ours.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT
from tests.ports import free_port
from tests.unit.lab import standalone_trainer
from tests.unit.lab.laboratory import Laboratory, Pod
from tests.unit.lab.standalone_trainer import SAMPLE, LabClient, train
from tests.webserver import Reply, Web, web
from trainyard.controller.reports.lab import BATCH
from trainyard.controller.reports.receiver import BODY_LIMIT

STANDALONE = Path(standalone_trainer.__file__)
OTHER_UID = "99999999-3333-4444-5555-666677778888"
ALERTS = ("job_started", "job_completed", "job_failed", "job_cancelled", "gpu_oom", "timeout_warning")
LLAMA: dict[str, Any] = {
    "model": {"storageUri": "hf://meta-llama/Llama-2-7b@main", "secretRef": {"name": "hub"}},
    "training": {"method": "CPT", "maxSteps": 40, "loggingSteps": 4},
    "datasets": [{"name": "d", "storageUri": "https://data.example.org/train.jsonl"}],
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Laboratory]:
    with Laboratory(tmp_path_factory.mktemp("lab")) as laboratory:
        laboratory.secret("hub", token="hf_secret")
        laboratory.secret("signed", url="https://data.example.org/x?X-Amz-Signature=abc")
        yield laboratory


@contextmanager
def told(lab: Laboratory, name: str, **secret: str) -> Iterator[tuple[Web, list[dict[str, str]]]]:
    """A receiver of alerts, and the `notifications` of a run that is to tell it."""
    with web(lambda asked: Reply({"success": True})) as receiver:
        lab.secret(f"{name}-receiver", url=f"{receiver.url}/api/alerts/trigger", **secret)
        yield receiver, [{"name": "lab", "secretRef": {"name": f"{name}-receiver"}}]


def bodies(receiver: Web) -> list[dict[str, Any]]:
    return [json.loads(asked.body) for asked in receiver.asked]


def called(lab: Laboratory, pod: Pod, folder: Path, *, command: str, **more: str) -> subprocess.CompletedProcess[str]:
    """A command in the pod: its variables, and /workspace as a folder of this machine."""
    mount = pod.mounts["/workspace/config.json"]
    assert (mount["subPath"], mount["readOnly"]) == ("run.json", True)
    secret = pod.volume("/workspace/config.json")["secret"]["secretName"]
    (folder / "config.json").write_text(lab.from_secret(secret, "run.json") or "")
    env = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | pod.env | more
    script = command.replace("/workspace", str(folder))
    return subprocess.run(["sh", "-c", script], env=env, cwd=folder, capture_output=True, text=True, timeout=60)


# The way of a job


def test_a_job_starts_posts_every_few_steps_and_completes(lab: Laboratory, tmp_path: Path):
    with told(lab, "whole") as (receiver, notifications):
        pod = lab.pod("whole", notifications=notifications, **LLAMA)
        command = f"python {STANDALONE} --config /workspace/config.json --execution-id ${{JOB_ID}}"
        done = called(lab, pod, tmp_path, command=command)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "everything was taken"
        lab.end(pod)
        lab.wait(lambda: len(receiver.asked) >= 2)
        assert [body["type"] for body in bodies(receiver)] == ["job_started", "job_completed"]
    status, found = LabClient(pod.env).get_metrics(lab.origin)
    assert status == 200
    assert [point["step"] for point in found["metrics"] if point["train_loss"] is not None] == list(range(4, 41, 4))
    assert found["metrics"][-1]["eval_loss"] == 0.42


def test_a_job_that_fails_is_told_with_what_its_script_has_said(lab: Laboratory, tmp_path: Path):
    with told(lab, "broken") as (receiver, notifications):
        pod = lab.pod("broken", notifications=notifications, backoffLimit=0)
        command = f"python {STANDALONE} --config /workspace/config.json --execution-id $JOB_ID"
        assert called(lab, pod, tmp_path, command=command, FAIL_AT="35").returncode == 1
        lab.end(pod, code=1)
        lab.wait(lambda: len(receiver.asked) >= 2)
        started, failed = bodies(receiver)
    assert started["type"] == "job_started"
    assert (failed["type"], failed["status"]) == ("job_failed", "failed")
    assert (failed["error_message"], failed["error_type"]) == ("CUDA out of memory", "CUDA_OOM")
    assert failed["current_step"] == 30


# The variables of the pod


def test_job_id_is_the_runs_and_no_other_runs(lab: Laboratory):
    first, second = lab.pod("one"), lab.pod("two")
    assert first.env["JOB_ID"] == first.uid != second.env["JOB_ID"] == second.uid


def test_job_token_opens_its_own_run_and_nothing_else(lab: Laboratory):
    mine, other = lab.pod("mine"), lab.pod("others")
    assert mine.env["JOB_TOKEN"] != other.env["JOB_TOKEN"]
    assert LabClient(mine.env).post_metrics(SAMPLE) == 200
    for token in ("", "x", mine.env["JOB_TOKEN"][:-1], mine.env["JOB_TOKEN"] + "x", other.env["JOB_TOKEN"]):
        client = LabClient({**mine.env, "JOB_TOKEN": token})
        assert (client.post_metrics(SAMPLE), client.get_metrics(lab.origin)[0]) == (401, 401), token
    assert LabClient(other.env).get_metrics(lab.origin)[1]["metrics"] == []


def test_job_token_stands_in_a_secret_and_in_no_manifest_or_log(lab: Laboratory):
    pod = lab.pod("secretive", **LLAMA)
    sources = {
        entry["name"]: entry["valueFrom"]["secretKeyRef"]["name"]
        for entry in pod.container["env"]
        if "valueFrom" in entry
    }
    assert sources == {"JOB_TOKEN": "secretive-trainyard", "INTERNAL_API_KEY": "secretive-trainyard", "HF_TOKEN": "hub"}
    LabClient(pod.env).post_metrics(SAMPLE)
    for text in (json.dumps(pod.job), json.dumps(lab.run("secretive")), lab.logged()):
        assert pod.env["JOB_TOKEN"] not in text


def test_user_id_is_whom_the_run_belongs_to(lab: Laboratory):
    lab.submit("of-ada", user="ada")
    assert lab.pod("of-ada").env["USER_ID"] == "ada"
    assert lab.pod("of-nobody").env["USER_ID"] == "lab", "without a label, the namespace"


def test_model_name_is_the_base_as_a_hub_writes_it(lab: Laboratory):
    assert lab.pod("llama", **LLAMA).env["MODEL_NAME"] == "meta-llama/Llama-2-7b"


def test_dataset_url_is_the_address_and_of_a_signed_one_the_whole(lab: Laboratory):
    assert lab.pod("plain-data", **LLAMA).env["DATASET_URL"] == "https://data.example.org/train.jsonl"
    signed = {"name": "d", "storageUri": "https://data.example.org/x", "secretRef": {"name": "signed"}}
    pod = lab.pod("signed-data", **LLAMA | {"datasets": [signed]})
    assert pod.env["DATASET_URL"] == "https://data.example.org/x?X-Amz-Signature=abc"
    assert "Signature" not in json.dumps(pod.job) + json.dumps(lab.run("signed-data"))


def test_metrics_api_url_is_the_operators_and_one_of_the_users_own_wins(lab: Laboratory):
    assert lab.pod("url").env["METRICS_API_URL"].partition("?")[0] == f"{lab.origin}/api/training/local/metrics"
    own = [{"name": "METRICS_API_URL", "value": "https://lab.example.org/m"}]
    assert lab.pod("own-url", podTemplate={"env": own}).env["METRICS_API_URL"] == "https://lab.example.org/m"


def test_alert_api_url_is_the_operators(lab: Laboratory):
    assert lab.pod("alert-url").env["ALERT_API_URL"] == f"{lab.origin}/api/alerts/trigger"


def test_internal_api_key_is_what_alerts_are_posted_with(lab: Laboratory):
    client = LabClient(lab.pod("key").env)
    assert client.trigger_alert("job_started") == 200
    client.internal_api_key = "another"
    assert client.trigger_alert("job_started") == 401
    client.internal_api_key = ""
    assert client.trigger_alert("job_started") == 401


def test_keys_of_other_services_are_in_no_pod_that_does_not_ask_for_them(lab: Laboratory):
    assert not [name for name in lab.pod("bare").env if "SUPABASE" in name]
    own = [{"name": "SUPABASE_SERVICE_KEY", "value": "x"}]
    assert lab.pod("asking", podTemplate={"env": own}).env["SUPABASE_SERVICE_KEY"] == "x"


def test_hf_token_comes_from_the_models_secret_and_both_hub_variables_are_optional(lab: Laboratory):
    assert lab.pod("hub-token", **LLAMA).env["HF_TOKEN"] == "hf_secret"
    assert not {"HF_TOKEN", "HF_REPO_NAME"} & lab.pod("no-hub").env.keys()
    own = [{"name": "HF_REPO_NAME", "value": "ada/llama"}]
    assert lab.pod("repo-name", podTemplate={"env": own}).env["HF_REPO_NAME"] == "ada/llama"


# Metrics


def test_metrics_are_posted_as_json_with_the_bearer_token(lab: Laboratory):
    client = LabClient(lab.pod("bearer").env)
    body = {"job_id": client.job_id, "metrics": [SAMPLE]}
    json_type = {"Content-Type": "application/json"}
    good = json_type | {"Authorization": f"Bearer {client.job_token}"}
    assert client.request("POST", client.metrics_api_url, body, good)[0] == 200
    for headers in (
        json_type,
        json_type | {"Authorization": client.job_token[::-1]},
        json_type | {"X-API-Key": client.job_token},
    ):
        status, answer = client.request("POST", client.metrics_api_url, body, headers)
        assert status == 401
        assert "Authorization" in answer["error"] or "JOB_TOKEN" in answer["error"]


def test_a_strangers_body_is_not_read(lab: Laboratory):
    for path in ("/api/training/local/metrics", "/api/alerts/trigger"):
        with socket.create_connection(("127.0.0.1", lab.operator.receiver), timeout=5) as connection:
            connection.sendall(f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n".encode())
            assert connection.recv(12) == b"HTTP/1.1 401"


def test_the_body_is_the_job_and_a_list_of_points(lab: Laboratory):
    client = LabClient(lab.pod("batch").env)
    points = [
        {
            **SAMPLE,
            "step": step,
            "eval_loss": step / 2,
            "perplexity": 1 + step,
            "timestamp": f"2025-12-19T10:30:{step:02d}.000Z",
        }
        for step in range(1, 51)
    ]
    assert client.post_metrics(*points) == 200
    assert client.get_metrics(lab.origin)[1] == {"job_id": client.job_id, "metrics": points}


def test_a_fault_in_a_body_is_named_and_nothing_of_it_is_taken(lab: Laboratory):
    client = LabClient(lab.pod("faulty").env)
    headers = {"Authorization": f"Bearer {client.job_token}"}

    def posted(body: Any) -> tuple[int, Any]:
        return client.request("POST", client.metrics_api_url, body, headers)

    status, answer = posted({"job_id": client.job_id, "metrics": [{"step": 1}, {"step": -2}]})
    assert status == 422
    assert "metrics.1.step" in answer["error"]
    assert posted({"job_id": OTHER_UID, "metrics": [SAMPLE]})[0] == 401
    assert posted({"job_id": client.job_id, "metrics": [{"step": 1, "epoch": -1}]})[0] == 422
    for body in ("text", [], {"job_id": client.job_id}, {"job_id": client.job_id, "metrics": "x"}, {"metrics": [None]}):
        assert posted(body)[0] == 422
    assert posted({"job_id": client.job_id, "metrics": [{"step": 1}] * (BATCH + 1)})[0] == 422
    assert posted({"x": "y" * BODY_LIMIT})[0] == 413
    assert client.get_metrics(lab.origin)[1]["metrics"] == []


def test_each_field_of_a_point_may_be_missing_but_for_the_step(lab: Laboratory):
    client = LabClient(lab.pod("fields").env)
    for place, name in enumerate(sorted(SAMPLE.keys() - {"step", "timestamp"})):
        moment = f"2025-12-19T10:30:{place:02d}.000Z"
        assert client.post_metrics({"step": place, name: SAMPLE[name], "timestamp": moment}) == 200
        point = client.get_metrics(lab.origin)[1]["metrics"][-1]
        assert {key for key, value in point.items() if value is not None} == {"step", name, "timestamp"}
        assert point[name] == SAMPLE[name]
    assert client.post_metrics({"train_loss": 1.0}) == 422


def test_what_was_not_measured_may_be_null_and_unknown_fields_pass(lab: Laboratory):
    client = LabClient(lab.pod("nulls").env)
    nothing = dict.fromkeys(SAMPLE.keys() - {"step", "train_loss"})
    assert client.post_metrics({"step": 7.0, "train_loss": 1.5, **nothing, "tokens_seen": 12}) == 200
    (one,) = client.get_metrics(lab.origin)[1]["metrics"]
    assert one["timestamp"].endswith("Z")
    assert {k: v for k, v in one.items() if v is not None and k != "timestamp"} == {"step": 7, "train_loss": 1.5}


def test_the_descriptions_own_example_comes_back_as_it_was_sent(lab: Laboratory):
    client = LabClient(lab.pod("example").env)
    assert client.post_metrics(SAMPLE) == 200
    assert client.get_metrics(lab.origin) == (200, {"job_id": client.job_id, "metrics": [SAMPLE]})


def test_metrics_are_read_at_the_address_with_the_job_in_it(lab: Laboratory):
    client = LabClient(lab.pod("read").env)
    assert client.get_metrics(lab.origin) == (200, {"job_id": client.job_id, "metrics": []})
    other = f"{lab.origin}/api/training/local/{OTHER_UID}/metrics"
    assert client.request("GET", other, None, {"Authorization": f"Bearer {client.job_token}"})[0] == 401
    assert client.request("GET", f"{lab.origin}/api/training/local/metrics", None, {})[0] == 405


def test_the_address_of_a_post_holds_no_job(lab: Laboratory):
    pod = lab.pod("no-job")
    assert pod.uid not in pod.env["METRICS_API_URL"]
    assert LabClient(pod.env).post_metrics(SAMPLE) == 200


def test_a_post_to_an_address_with_the_job_in_it_is_405_and_says_where_to(lab: Laboratory):
    client = LabClient(lab.pod("wrong-post").env)
    url = f"{lab.origin}/api/training/local/{client.job_id}/metrics"
    headers = {"Authorization": f"Bearer {client.job_token}"}
    status, answer = client.request("POST", url, {"job_id": client.job_id, "metrics": [SAMPLE]}, headers)
    assert status == 405
    assert "/api/training/local/metrics" in answer["error"]
    assert client.get_metrics(lab.origin)[1]["metrics"] == []


def test_a_post_is_answered_well_within_the_labs_ten_seconds(lab: Laboratory):
    client = LabClient(lab.pod("prompt").env)
    began = time.monotonic()
    for step in range(20):
        assert client.post_metrics({**SAMPLE, "step": step}) == 200
    assert time.monotonic() - began < standalone_trainer.TIMEOUT


def test_without_an_address_nothing_is_posted(lab: Laboratory):
    own = [{"name": "METRICS_API_URL", "value": ""}, {"name": "ALERT_API_URL", "value": ""}]
    pod = lab.pod("silent", podTemplate={"env": own})
    client = LabClient(pod.env)
    assert train(client, steps=20, logging_steps=5) == 0
    assert client.failures == []
    assert LabClient(pod.env).get_metrics(lab.origin)[1]["metrics"] == []


# Alerts


def test_an_alert_is_posted_as_json_with_the_key(lab: Laboratory):
    client = LabClient(lab.pod("alert-key").env)
    body = {"type": "job_started", "job_id": client.job_id, "user_id": "ada", "model_name": ""}
    for headers, status in (
        ({"X-API-Key": client.internal_api_key}, 200),
        ({"Authorization": f"Bearer {client.job_token}"}, 401),
    ):
        assert (
            client.request("POST", client.alert_api_url, body, headers | {"Content-Type": "application/json"})[0]
            == status
        )


def test_the_key_goes_to_a_receiver_only_where_one_is_set(lab: Laboratory):
    with told(lab, "keyless") as (without, first), told(lab, "keyed", apiKey="the-key") as (receiver, second):
        lab.pod("keyless", notifications=first)
        lab.pod("keyed", notifications=second)
        lab.wait(lambda: without.asked and receiver.asked)
    assert without.asked[0].headers["X-API-Key"] is None
    assert receiver.asked[0].headers["X-API-Key"] == "the-key"
    assert {asked.headers["Content-Type"] for asked in (without.asked[0], receiver.asked[0])} == {"application/json"}


def test_each_of_the_six_types_is_taken_and_no_other(lab: Laboratory):
    client = LabClient(lab.pod("types").env)
    assert {kind: client.trigger_alert(kind, duration=3600000, progress=50.0) for kind in ALERTS} == dict.fromkeys(
        ALERTS, 200
    )
    assert client.trigger_alert("job_paused") == 422


def test_a_pod_that_was_killed_is_told_of_by_the_operator(lab: Laboratory):
    with told(lab, "killed") as (receiver, notifications):
        lab.end(lab.pod("killed", notifications=notifications, backoffLimit=0), code=137, signal=9)
        lab.wait(lambda: len(receiver.asked) >= 2)
        assert [body["type"] for body in bodies(receiver)] == ["job_started", "job_failed"]


def test_a_job_that_was_cancelled_is_told_of_by_the_operator(lab: Laboratory):
    with told(lab, "cancelled") as (receiver, notifications):
        pod = lab.pod("cancelled", notifications=notifications)
        lab.wait(lambda: lab.status("cancelled").get("state") == "Training")
        lab.cancel("cancelled", "enough")
        lab.vanish(pod)
        lab.wait(lambda: len(receiver.asked) >= 2)
        assert [body["type"] for body in bodies(receiver)] == ["job_started", "job_cancelled"]
        assert bodies(receiver)[-1]["status"] == "failed"


def test_a_deadline_is_warned_of_before_it_comes(lab: Laboratory):
    with told(lab, "late") as (receiver, notifications):
        pod = lab.pod("late", notifications=notifications, activeDeadlineSeconds=20)
        lab.wait(lambda: len(receiver.asked) >= 2, 40)
        assert [body["type"] for body in bodies(receiver)] == ["job_started", "timeout_warning"]
        assert lab.status("late")["state"] == "Training", "it still runs"
        lab.end(pod)


def test_memory_of_the_device_is_told_with_the_labs_word(lab: Laboratory):
    with told(lab, "oom") as (receiver, notifications):
        pod = lab.pod("oom", notifications=notifications, backoffLimit=0)
        record = {"outcome": "Failed", "reason": "DeviceOutOfMemory", "message": "the GPU is full", "stepNumber": 5}
        lab.end(pod, code=79, record=record)
        lab.wait(lambda: len(receiver.asked) >= 3)
        types = {body["type"]: body for body in bodies(receiver)}
    assert types.keys() == {"job_started", "gpu_oom", "job_failed"}
    assert types["gpu_oom"]["error_type"] == types["job_failed"]["error_type"] == "CUDA_OOM"


def test_an_alert_has_the_fields_of_the_description_in_its_units(lab: Laboratory):
    with told(lab, "fields-told") as (receiver, notifications):
        lab.submit("fields-told", user="ada", notifications=notifications, **LLAMA)
        pod = lab.pod("fields-told")
        client = LabClient(pod.env)
        assert client.post_metrics({"step": 20, "epoch": 0.5, "train_loss": 0.35}) == 200
        lab.wait(lambda: (lab.status("fields-told").get("trainerStatus") or {}).get("step") == 20)
        time.sleep(1.5)
        lab.end(pod)
        lab.wait(lambda: len(receiver.asked) >= 2)
        done = bodies(receiver)[1]
    assert (done["job_id"], done["user_id"], done["model_name"]) == (pod.uid, "ada", "meta-llama/Llama-2-7b")
    assert (done["type"], done["status"]) == ("job_completed", "completed")
    assert (done["current_step"], done["loss"]) == (20, 0.35)
    assert isinstance(done["duration"], int), "milliseconds"
    assert 1000 <= done["duration"] < 60_000
    assert done.keys() <= {
        "type", "job_id", "user_id", "model_name", "status", "progress", "current_step", "total_steps", "loss", "duration",
        "error_message", "error_type",
    }  # fmt: skip


@pytest.mark.parametrize("missing", ["ALERT_API_URL", "JOB_ID", "USER_ID"])
def test_an_alert_without_address_job_or_user_is_left_out_in_silence(missing: str, lab: Laboratory):
    pod = lab.pod("skips")
    script = "from trainyard.trainer.alerts import trigger_alert; print(trigger_alert('job_started'))"
    env = {**os.environ, **pod.env, missing: "", "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_the_descriptions_three_calls_work_in_a_users_own_script(lab: Laboratory):
    """In a script that imports nothing else of ours, and no torch."""
    pod = lab.pod("own-script")
    script = (
        "import sys\n"
        "from trainyard.trainer.alerts import trigger_alert\n"
        "print(trigger_alert('job_started', total_steps=1000), trigger_alert('job_completed', loss=0.25),\n"
        "      trigger_alert('job_failed', error_message=str(ValueError('e'))), 'torch' in sys.modules)\n"
    )
    env = {**os.environ, **pod.env, "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "True True True False\n"


def test_each_edge_is_told_once_however_often_a_script_says_it(lab: Laboratory):
    with told(lab, "again") as (receiver, notifications):
        first = lab.pod("again", notifications=notifications, backoffLimit=3)
        assert train(LabClient(first.env), steps=20, logging_steps=5, fail_at=10) == 1
        lab.end(first, code=1)
        second = lab.pod("again", attempt=2)
        client = LabClient(second.env)
        assert train(client, steps=20, logging_steps=5) == 0
        assert client.trigger_alert("job_started") == client.trigger_alert("job_completed") == 200
        lab.end(second)
        lab.wait(lambda: lab.status("again").get("state") == "Succeeded" and len(receiver.asked) >= 2)
        time.sleep(1)
        assert Counter(body["type"] for body in bodies(receiver)) == {"job_started": 1, "job_completed": 1}
        assert len({asked.headers["Idempotency-Key"] for asked in receiver.asked}) == 2
        assert bodies(receiver)[-1]["loss"] == 0.25, "what the script has said of its end is told"


# The trainer


def test_each_evaluation_is_shown_also_where_it_equals_the_one_before(lab: Laboratory):
    client = LabClient(lab.pod("plateau").env)
    for step in (100, 200, 300):
        assert client.post_metrics({"step": step, "eval_loss": 0.42, "perplexity": 1.52}) == 200
    points = client.get_metrics(lab.origin)[1]["metrics"]
    assert [(p["step"], p["eval_loss"]) for p in points] == [(100, 0.42), (200, 0.42), (300, 0.42)]


def test_each_logging_step_each_evaluation_and_the_end_are_reported(lab: Laboratory):
    client = LabClient(lab.pod("logging").env)
    assert train(client, steps=20, logging_steps=5) == 0
    points = client.get_metrics(lab.origin)[1]["metrics"]
    assert [point["step"] for point in points if point["train_loss"] is not None] == [5, 10, 15, 20]
    assert (points[-1]["eval_loss"], points[-1]["perplexity"]) == (0.42, 2.718)


def test_step_epoch_and_loss_are_what_the_run_shows(lab: Laboratory):
    client = LabClient(lab.pod("progress").env)
    callback = standalone_trainer.TrainingMetricsCallback(client, steps=300)
    assert (callback.metrics_api_url, callback.job_id, callback.job_token) == tuple(
        lab.pod("progress").env[name] for name in ("METRICS_API_URL", "JOB_ID", "JOB_TOKEN")
    )
    callback.on_log(150, 0.45)
    assert callback.progress == {"current_step": 150, "current_epoch": 0.5, "train_loss": 0.45}
    lab.wait(lambda: (lab.status("progress").get("trainerStatus") or {}).get("step") == 150)
    shown = lab.status("progress")["trainerStatus"]
    assert float(shown["epoch"]) == 0.5
    assert {m["name"]: float(m["value"]) for m in shown["metrics"]}["loss"] == 0.45


def test_the_attempt_that_reports_is_the_one_that_is_shown(lab: Laboratory):
    first = lab.pod("attempts", backoffLimit=3)
    LabClient(first.env).post_metrics(SAMPLE)
    lab.end(first, code=1)
    second = lab.pod("attempts", attempt=2)
    assert LabClient(second.env).post_metrics({"step": 7, "train_loss": 1.0}) == 200
    lab.wait(lambda: (lab.status("attempts").get("trainerStatus") or {}).get("step") == 7)
    LabClient(first.env).post_metrics({"step": 900, "train_loss": 9.0})
    time.sleep(1.5)
    assert lab.status("attempts")["trainerStatus"]["step"] == 7


def test_a_receiver_that_is_gone_or_refuses_does_not_stop_the_training(lab: Laboratory):
    pod = lab.pod("stubborn")
    gone = {**pod.env, "METRICS_API_URL": f"http://127.0.0.1:{free_port()}/m", "ALERT_API_URL": "http://127.0.0.1:9/a"}
    assert train(LabClient(gone), steps=20, logging_steps=5) == 0
    client = LabClient({**pod.env, "JOB_TOKEN": "x", "INTERNAL_API_KEY": "x"})
    assert train(client, steps=20, logging_steps=5) == 0
    assert set(client.failures) == {"HTTP 401"}


def test_after_the_end_of_the_run_metrics_are_refused_for_good_and_can_be_read(lab: Laboratory):
    pod = lab.pod("over")
    client = LabClient(pod.env)
    assert client.post_metrics(SAMPLE) == 200
    lab.end(pod)
    lab.wait(lambda: lab.status("over").get("state") == "Succeeded")
    lab.wait(lambda: client.post_metrics({**SAMPLE, "step": 101}) == 410)
    assert client.get_metrics(lab.origin) == (200, {"job_id": client.job_id, "metrics": [SAMPLE]})


@pytest.mark.slow
def test_a_receiver_that_does_not_answer_is_given_up_after_ten_seconds(lab: Laboratory):
    pod = lab.pod("patient")
    script = (
        "import os, time\n"
        "from trainyard.trainer.alerts import trigger_alert\n"
        "from trainyard.trainer.tracking.lab import LabFollower\n"
        "follower = LabFollower.of()\n"
        "began = time.monotonic()\n"
        "follower.add(1, {'loss': 1.0})\n"
        "print(trigger_alert('job_started'), round(time.monotonic() - began))\n"
        "follower.close(20)\n"
        "print(round(time.monotonic() - began))\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        env = {
            **os.environ,
            **pod.env,
            "METRICS_API_URL": url,
            "ALERT_API_URL": url,
            "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image",
        }
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert "False 10" in said
    assert said[-1] in ("10", "11"), "both at the same time, and neither is tried again when the script ends"
    assert sum("did not take it" in line for line in said) == 2


# The pod


@pytest.mark.skipif(not any(Path(p, "curl").exists() for p in os.environ["PATH"].split(":")), reason="no curl here")
def test_the_labs_own_start_command_fetches_the_script_and_calls_it(lab: Laboratory, tmp_path: Path):
    with web(lambda asked: Reply(STANDALONE.read_bytes())) as source:
        start = (
            f"curl -f -L -o /workspace/standalone_trainer.py {source.url}/standalone_trainer.py && "
            "python /workspace/standalone_trainer.py --config /workspace/config.json --execution-id ${JOB_ID}"
        )
        room = {
            "volumes": [{"name": "room", "emptyDir": {}}],
            "volumeMounts": [{"name": "room", "mountPath": "/workspace"}],
        }
        pod = lab.pod("fetched", command=["sh", "-c", start], podTemplate=room)
        assert pod.container["command"] == ["sh", "-c", start]
        assert pod.volume("/workspace") == {"name": "room", "emptyDir": {}}, "the command may write there"
        done = called(lab, pod, tmp_path, command=pod.container["command"][-1])
    assert done.returncode == 0, done.stderr
    assert len(LabClient(pod.env).get_metrics(lab.origin)[1]["metrics"]) == 10


def test_what_a_job_leaves_outlives_its_pod(lab: Laboratory):
    """The lab keeps a pod alive for an hour; here the volume stays, for `trainyard download`."""
    pod = lab.pod("leaving")
    place = pod.env["TRAINYARD_OUTPUT_DIR"]
    (mounted,) = (path for path in pod.mounts if place.startswith(f"{path}/"))
    assert pod.volume(mounted)["persistentVolumeClaim"]["claimName"] == "leaving-checkpoints"
    lab.end(pod)
    lab.wait(lambda: lab.status("leaving").get("state") == "Succeeded")
    lab.vanish(pod, job=False)
    assert ("lab", "leaving-checkpoints") in lab.kube.objects["persistentvolumeclaims"]


def test_a_receiver_on_the_operators_own_machine_is_refused(lab: Laboratory):
    for number, url in enumerate(
        (
            "http://localhost:3000/api",
            "http://127.0.0.1/x",
            "http://127.1/x",
            "https://[::1]:8/x",
            "http://169.254.169.254/",
        )
    ):
        lab.submit(f"nearby-{number}", notifications=[{"name": "lab", "url": url}])
        lab.wait(lambda number=number: "own machine" in str(lab.status(f"nearby-{number}")))
        assert ("lab", f"nearby-{number}-train-1") not in lab.kube.objects["jobs"]


def test_both_addresses_are_said_at_the_start_and_what_was_taken_is_counted(lab: Laboratory, tmp_path: Path):
    before = lab.operator_metrics()
    pod = lab.pod("spoken")
    script = (
        "from trainyard.trainer.tracking.lab import LabFollower\n"
        "follower = LabFollower.of()\n"
        "follower.add(1, {'loss': 1.0})\n"
        "follower.close(5)\n"
    )
    env = {**os.environ, **pod.env, "PYTHONPATH": f"{ROOT}/operator:{ROOT}/trainer-image"}
    said = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout
    assert f"metrics are posted to {lab.origin}/api/training/local/metrics" in said
    assert pod.env["JOB_TOKEN"] not in said
    assert len(LabClient(pod.env).get_metrics(lab.origin)[1]["metrics"]) == 1, said
    assert counted(lab.operator_metrics(), "ok") > counted(before, "ok")
    away = {**env, "METRICS_API_URL": "http://user:pass@127.0.0.1:9/m?sig=abc"}
    said = subprocess.run([sys.executable, "-c", script], env=away, capture_output=True, text=True, check=True).stdout
    assert "metrics are posted to http://127.0.0.1:9/m\n" in said
    assert "did not take it" in said
    assert not any(secret in said for secret in ("pass", "abc", pod.env["JOB_TOKEN"]))


def counted(metrics: str, result: str) -> float:
    wanted = f'trainyard_progress_reports_total{{format="lab",result="{result}"}}'
    return sum(float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(wanted))
