"""Alerts on their way: over real HTTP on loopback, to receivers that are away, that refuse, that lead elsewhere."""

import asyncio
import base64
import json
import socket
from typing import Any

import pytest

from tests.ports import free_port
from tests.unit.controller.alerts.test_edges import ref, status
from tests.unit.controller.fake_clock import FakeClock, eventually
from tests.unit.controller.fake_kube import FakeKube
from tests.webserver import Reply, web
from trainyard.api.run.notifications import Notification
from trainyard.controller.alerts import desk as desks
from trainyard.controller.alerts.bodies import Posted
from trainyard.controller.alerts.desk import AlertDesk
from trainyard.controller.alerts.door import Door, Never, NotNow
from trainyard.controller.alerts.edges import with_told
from trainyard.controller.clock import SystemClock
from trainyard.controller.kube.cluster import Cluster
from trainyard.controller.schedules.triggers.addresses import Rules

HERE = Rules(allow_loopback=True, asker="notifications")
BODY = Posted(b"{}", {"Content-Type": "application/json"})
LAB = Notification.model_validate({"name": "lab", "secretRef": {"name": "lab"}})


def secret(kube: FakeKube, **values: str) -> None:
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    kube.put("secrets", {"metadata": {"namespace": "lab", "name": "lab"}, "data": data})


@pytest.fixture
async def door(cluster: Cluster):
    made = Door(cluster=cluster, rules=HERE, seconds=1.0)
    yield made
    await made.close()


async def test_the_key_is_sent_as_x_api_key_only_where_there_is_one(door: Door, kube: FakeKube):
    with web(lambda asked: Reply({"ok": True})) as receiver:
        secret(kube, url=receiver.url)
        await door.send("lab", LAB, BODY, key="u/job_started")
        secret(kube, url=receiver.url, apiKey="the-key")
        await door.send("lab", LAB, BODY, key="u/job_started")
        first, second = receiver.asked
    assert first.headers["X-API-Key"] is None
    assert second.headers["X-API-Key"] == "the-key"
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] == "u/job_started"
    assert first.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("code", [400, 401, 404, 410, 301, 307])
async def test_what_a_receiver_refuses_for_good_is_not_tried_again(door: Door, kube: FakeKube, code: int):
    with web(
        lambda asked: Reply(b"no secret-path", status=code, headers={"Location": "http://169.254.169.254/"})
    ) as receiver:
        secret(kube, url=f"{receiver.url}/secret-path")
        with pytest.raises(Never) as refused:
            await door.send("lab", LAB, BODY, key="k")
        assert len(receiver.asked) == 1
    assert "secret-path" not in str(refused.value)


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_what_may_work_later_is_tried_later(door: Door, kube: FakeKube, code: int):
    with web(lambda asked: Reply(status=code)) as receiver:
        secret(kube, url=receiver.url)
        with pytest.raises(NotNow, match=str(code)):
            await door.send("lab", LAB, BODY, key="k")


async def test_nobody_there_and_no_answer_are_told_without_the_address(door: Door, kube: FakeKube):
    secret(kube, url=f"http://127.0.0.1:{free_port()}/hooks/T0K3N-in-the-path")
    with pytest.raises(NotNow) as away:
        await door.send("lab", LAB, BODY, key="k")
    assert "T0K3N" not in str(away.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        secret(kube, url=f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(NotNow, match="no answer in time"):
            await door.send("lab", LAB, BODY, key="k")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8/", "http://localhost:8/", "http://0x7f.1/", "http://[::1]/", "http://169.254.169.254/latest",
        "http://[::ffff:127.0.0.1]/", "http://0.0.0.0/",
    ],
)  # fmt: skip
async def test_no_alert_goes_to_the_operators_own_machine_or_a_clouds_metadata(
    cluster: Cluster, kube: FakeKube, url: str
):
    door = Door(cluster=cluster, rules=Rules(asker="notifications"), seconds=2.0)
    secret(kube, url=url)
    with pytest.raises(Never, match="notifications must not ask"):
        await door.send("lab", LAB, BODY, key="k")
    await door.close()


async def test_an_address_that_is_none_is_refused_with_the_way_out(door: Door, kube: FakeKube):
    for url in ("ftp://host/", "host/path", "http://"):
        secret(kube, url=url)
        with pytest.raises(Never, match="http"):
            await door.send("lab", LAB, BODY, key="k")
    secret(kube, other="x")
    with pytest.raises(Never, match="no key url"):
        await door.send("lab", LAB, BODY, key="k")


class Script:
    """A door that answers as it is told."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, dict[str, Any]]] = []

    async def send(self, namespace: str, notification: Notification, posted: Posted, *, key: str) -> None:
        self.sent.append((key, json.loads(posted.body)))
        if self.answers and (answer := self.answers.pop(0)) is not None:
            raise answer


async def test_alerts_of_a_run_arrive_in_order_whatever_has_to_be_repeated():
    clock, looks = FakeClock(), []
    script = Script(NotNow("away"), NotNow("away"), None, None)
    desk = AlertDesk(door=script, clock=clock, look=looks.append)
    run, ended = ref(), status(state="Succeeded", ended="Complete")
    desk.consider(run, ended)
    desk.consider(run, ended)  # the same once more
    await clock.advance(30)
    assert [body["type"] for _, body in script.sent] == ["job_started"] * 3 + ["job_completed"]
    assert len({key for key, _ in script.sent}) == 2
    assert [alert.state for alert in desk.told(run.uid)] == ["Told", "Told"]
    assert looks == [("lab", "tiny")] * 2
    desk.consider(run, ended)  # told, and not written yet
    await clock.advance(30)
    assert len(script.sent) == 4
    desk.consider(run, with_told(ended, desk.told(run.uid)))
    assert desk.told(run.uid) == []
    assert desk.waiting() == 0
    await desk.close()


async def test_one_receiver_that_is_away_holds_up_no_other_and_is_given_up_one_day():
    clock = FakeClock()

    class OneIsAway(Script):
        async def send(self, namespace: str, notification: Notification, posted: Posted, *, key: str) -> None:
            if notification.name == "away":
                raise NotNow("nobody there")
            await super().send(namespace, notification, posted, key=key)

    door = OneIsAway()
    desk = AlertDesk(door=door, clock=clock, look=lambda key: None)
    lab = {"name": "lab", "url": "https://a/"}
    run = ref({"name": "away", "url": "https://b/"}, lab)
    desk.consider(run, status())
    await clock.advance(1)
    assert [key for key, _ in door.sent] == [f"{run.uid}/job_started"]
    await clock.advance(desks.GIVE_UP + 2 * desks.LONGEST_PAUSE)
    told = {alert.name: alert for alert in desk.told(run.uid)}
    assert told["job_started/away"].state == "GivenUp"
    assert "nobody there" in (told["job_started/away"].message or "")
    assert told["job_started/lab"].state == "Told"
    await desk.close()


async def test_what_a_receiver_refuses_stands_in_the_status_with_the_reason():
    script = Script(Never("the receiver refuses the alert (HTTP 401)"))
    desk = AlertDesk(door=script, clock=SystemClock(), look=lambda key: None)
    run = ref()
    desk.consider(run, status())
    await eventually(lambda: bool(desk.told(run.uid)), 5)
    (one,) = desk.told(run.uid)
    assert (one.name, one.state) == ("job_started/lab", "Refused")
    assert "401" in (one.message or "")
    await desk.close()


async def test_what_the_script_says_of_its_end_is_in_the_alert_of_it():
    script = Script()
    desk = AlertDesk(door=script, clock=SystemClock(), look=lambda key: None)
    run = ref()
    desk.script_said(run.uid, {"error_message": "loss is nan", "error_type": "NaN", "loss": None})
    desk.consider(run, status(state="Failed", ended="Failed", failure={"reason": "Error", "message": "exit code 1"}))
    await eventually(lambda: len(script.sent) == 2, 5)
    body = script.sent[1][1]
    assert (body["error_message"], body["error_type"], body["loss"]) == ("loss is nan", "NaN", 0.35)
    await desk.close()


async def test_of_a_run_that_is_gone_nothing_is_sent_any_more():
    clock = FakeClock()
    script = Script(*[NotNow("away")] * 50)
    desk = AlertDesk(door=script, clock=clock, look=lambda key: None)
    run = ref()
    desk.consider(run, status())
    await clock.advance(5)
    before = len(script.sent)
    desk.forget(run.uid)
    await clock.advance(600)
    assert len(script.sent) == before
    assert desk.waiting() == 0


async def test_more_lanes_than_there_may_be_are_asked_for_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(desks, "LANES", 1)
    clock = FakeClock()
    desk = AlertDesk(door=Script(*[NotNow("away")] * 9), clock=clock, look=lambda key: None)
    run = ref({"name": "a", "url": "https://a/"}, {"name": "b", "url": "https://b/"})
    assert desk.consider(run, status()) == desks.FULL_RECHECK
    await desk.close()


async def test_sending_waits_for_no_more_than_so_many_at_a_time():
    under_way = most = 0

    class Slow(Script):
        async def send(self, namespace: str, notification: Notification, posted: Posted, *, key: str) -> None:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.01)
            under_way -= 1

    desk = AlertDesk(door=Slow(), clock=SystemClock(), look=lambda key: None)
    runs = [ref() for _ in range(60)]
    for at, run in enumerate(runs):
        desk.consider(type(run)(**{**run.__dict__, "uid": f"u-{at}"}), status())
    await eventually(lambda: desk.waiting() == 0, 10)
    assert most == desks.AT_A_TIME
