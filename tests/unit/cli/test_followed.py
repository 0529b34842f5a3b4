"""logs, watch and wait: what is told while a run goes on, and how the program ends with it."""

import pytest

from tests.unit.cli import runs
from tests.unit.cli.calling import call
from tests.unit.cli.fake_cluster import FakeCluster

TRAIN = [{"name": "train", "state": "Running", "attempts": [{"number": 1, "state": "Running"}]}]


def end(cluster: FakeCluster, *, well: bool = True) -> None:
    kind, state = ("Complete", "Succeeded") if well else ("Failed", "Failed")
    cluster.run(state=state, message="over", conditions=[runs.condition(kind, "True", "Error")])


def test_logs_are_one_text_over_steps_and_attempts(cluster: FakeCluster) -> None:
    cluster.run(state="Training", steps=TRAIN)
    cluster.pod("prepare", 1, phase="Succeeded", log=runs.log("reading", "packed"))
    cluster.pod("train", 1, phase="Failed", log=runs.log("step 1"))
    cluster.pod("train", 2, log=runs.log("step 2"))
    result = call("logs", "runbook")
    assert result.stdout.splitlines() == ["reading", "packed", "step 1", "step 2"]
    assert result.stderr.splitlines() == [
        "==> prepare, attempt 1 <==",
        "==> train, attempt 1 <==",
        "==> train, attempt 2 <==",
    ]


def test_logs_of_a_step_or_an_attempt_alone(cluster: FakeCluster) -> None:
    cluster.run(state="Training", steps=TRAIN)
    for attempt in (1, 2):
        cluster.pod("train", attempt, log=runs.log(f"attempt {attempt}"))
    cluster.pod("prepare", 1, phase="Succeeded", log=runs.log("reading"))
    assert call("logs", "runbook", "--step", "train", "--attempt", "2").stdout == "attempt 2\n"
    assert (
        call("logs", "runbook", "--step", "prepare", "--timestamps").stdout
        == "2026-03-01T12:01:00.000000000Z reading\n"
    )


def test_of_a_pod_that_is_gone_the_end_of_its_log_is_told(cluster: FakeCluster) -> None:
    runs.failed(cluster)
    result = call("logs", "broken")
    assert result.stdout.splitlines() == ["reading runbook.jsonl", "line 7: messages is empty"]
    assert "its pod is gone" in result.stderr


def test_a_run_without_a_log_says_why(cluster: FakeCluster) -> None:
    runs.waiting(cluster)
    result = call("logs", "queued")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "waiting for a node" in result.stderr
    assert "trainyard explain queued" in result.stderr


def test_following_goes_over_to_the_next_attempt_and_ends_with_the_run(cluster: FakeCluster) -> None:
    cluster.run(state="Training", steps=TRAIN)
    first = cluster.pod("train", 1, log=runs.log("step 1"))
    looks = 0
    ask = cluster.answer

    def answer(method: str, target: str, body: object) -> tuple[int, object]:
        nonlocal looks
        if "/log" in target:
            looks += 1
            if looks == 2:  # The stream broke off; meanwhile a line more has come, and the pod has ended.
                cluster.logs[first] += "2026-03-01T12:05:00.000000000Z step 2\n"
                cluster.pod("train", 1, phase="Failed", log=cluster.logs[first])
                cluster.pod("train", 2, phase="Succeeded", log="2026-03-01T12:06:00.000000000Z step 3\n")
                end(cluster)
        return ask(method, target, body)

    cluster.answer = answer  # type: ignore[method-assign]
    result = call("logs", "-f", "runbook")
    assert result.stdout.splitlines() == ["step 1", "step 2", "step 3"]
    assert result.exit_code == 0
    assert "==> runbook Succeeded: over <==" in result.stderr


def test_following_a_run_that_fails_ends_as_it_did(cluster: FakeCluster) -> None:
    runs.failed(cluster)
    assert call("logs", "-f", "broken").exit_code == 1


@pytest.mark.parametrize(("width", "shown"), [(None, 10), (140, 10), (130, 9), (120, 8), (100, 7), (80, 6)])
def test_watch_leaves_out_columns_that_a_terminal_has_no_room_for(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, width: int | None, shown: int
) -> None:
    for module in ("printing", "watching"):
        monkeypatch.setattr(f"trainyard.cli.{module}.terminal_width", lambda: width)
    end(cluster, well=True)
    table = call("watch", "runbook").stdout.splitlines()[:2]
    assert len(table[0].split()) == shown, table[0]
    assert all(len(line) <= (width or 200) for line in table)
    assert {"NAME", "STATE", "PROGRESS", "STEP", "ETA", "AGE"} <= set(table[0].split())


def test_what_a_narrow_terminal_does_not_show_is_no_change(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainyard.cli.watching.terminal_width", lambda: 80)
    cluster.run(state="Pending")
    cluster.later = [lambda: cluster.run(state="Pending", summary={"method": "SFT"}), lambda: end(cluster, well=True)]
    lines = call("watch", "runbook").stdout.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["STATE", "Pending", "Succeeded"]


def test_watch_prints_a_line_for_each_change_and_ends_as_the_run_does(cluster: FakeCluster) -> None:
    cluster.run(state="Preparing")
    cluster.later = [
        lambda: cluster.run(state="Training", summary={"step": "1/3"}),
        lambda: cluster.run(state="Training", summary={"step": "1/3"}, message="not shown"),
        lambda: end(cluster, well=False),
    ]
    result = call("watch", "runbook")
    lines = result.stdout.splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["STATE", "Preparing", "Training", "Failed"]
    assert lines[4:] == [
        "runbook Failed: over",
        "Next: trainyard explain runbook",
        "      trainyard logs runbook",
        "      trainyard retry runbook",
    ]
    assert result.exit_code == 1


def test_wait_ends_as_the_run_does(cluster: FakeCluster) -> None:
    cluster.run(state="Training")
    cluster.later = [lambda: end(cluster)]
    result = call("wait", "runbook")
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, "runbook Succeeded: over")
    end(cluster, well=False)
    assert call("wait", "runbook").exit_code == 1


def test_wait_for_a_state(cluster: FakeCluster) -> None:
    cluster.run(state="Preparing")
    cluster.later = [lambda: cluster.run(state="Suspended", conditions=[runs.condition("Suspended", "True", "S")])]
    assert call("wait", "runbook", "--for", "suspended").exit_code == 0
    end(cluster)
    result = call("wait", "runbook", "--for", "Training")
    assert result.exit_code == 1
    assert "is Succeeded, and will not become Training" in result.stderr


def test_what_does_not_come_in_time_is_a_time_out(cluster: FakeCluster) -> None:
    cluster.run(state="Pending", message="waiting for a node")
    for verb in ("wait", "watch"):
        result = call(verb, "runbook", "--timeout", "0.3s")
        assert result.exit_code == 124
        assert "waiting for a node" in result.stderr


def test_a_run_that_is_deleted_meanwhile_is_not_waited_for(cluster: FakeCluster) -> None:
    cluster.run(state="Training")
    cluster.later = [lambda: cluster.objects.clear()]
    assert call("wait", "runbook").exit_code == 3


def test_a_time_that_is_none_is_wrong_use(cluster: FakeCluster) -> None:
    for words in ("10 minutes", "x", "5m3x", "1.2.3"):
        result = call("wait", "runbook", "--timeout", words)
        assert result.exit_code == 2
        assert "write 30s, 5m or 1h30m" in result.stderr
