"""Deployments that make room for a training: what is written on them, in the plan and against every other order of events."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit.controller.runs.world import UID, World, manifest
from trainyard.controller.runs.actions import Patch
from trainyard.controller.runs.yielding import (
    YIELDED_ANNOTATION,
    YIELDED_LABEL,
    Holder,
    Note,
    Yielding,
    give_back,
    make_room,
    still_needs,
)

PLACE = {"yieldFrom": [{"deployment": "ollama"}]}


def deployment(replicas: int = 2, *, version: str = "7", note: Note | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "ollama", "namespace": "lab", "resourceVersion": version}
    if note is not None:
        metadata |= {"labels": {YIELDED_LABEL: "true"}, "annotations": {YIELDED_ANNOTATION: note.text()}}
    return {"metadata": metadata, "spec": {"replicas": replicas}, "status": {"replicas": replicas}}


def world(**spec: Any) -> World:
    made = World(run=manifest(placement=PLACE, **spec))
    made.others = {"deployments": {"ollama": deployment()}, "pods": {"ollama-1": {}}}
    made.reconcile()
    made.start_pod()
    made.end()  # prepare
    return made


def served(made: World) -> dict[str, Any]:
    return made.others["deployments"]["ollama"]


def of(made: World) -> Note | None:
    return Note.on(served(made))


class TestOneRun:
    def test_the_training_begins_when_the_pods_are_gone(self) -> None:
        made = world()
        assert of(made) is None, "the data are prepared beside it"
        made.reconcile()
        assert served(made)["spec"]["replicas"] == 0
        assert served(made)["metadata"]["labels"] == {YIELDED_LABEL: "true"}
        assert of(made) == Note(2, (Holder(UID, "lab", "tiny", "tiny-train-1"),))
        ready = made.status().conditions[0]
        assert (made.status().state, ready.reason) == ("Pending", "Yielding")
        assert ready.message == "waiting for Deployment ollama (ollama-1) to make room for the training"
        made.settle()
        assert made.created == ["tiny-prepare-1"], "its pod is still there"
        made.others["pods"].clear()
        served(made)["status"] = {}
        made.settle()
        assert made.created == ["tiny-prepare-1", "tiny-train-1"]

    def test_another_attempt_takes_it_anew(self) -> None:
        made = world()
        made.others["pods"].clear()
        served(made)["status"] = {}
        made.settle()
        made.start_pod()
        made.end(exit_code=1)
        made.settle()
        made.pass_time(60)
        made.settle()
        assert made.created[-1] == "tiny-train-2"
        assert of(made) == Note(2, (Holder(UID, "lab", "tiny", "tiny-train-2"),))

    def test_one_that_does_not_exist(self) -> None:
        made = world()
        del made.others["deployments"]["ollama"]
        made.settle()
        stalled = next(c for c in made.status().conditions if c.type == "Stalled")
        assert stalled.message == (
            "spec.placement.yieldFrom[0]: Deployment ollama does not exist in namespace lab; create it, or correct the name"
        )
        made.others["deployments"]["ollama"] = deployment(0)
        made.others["pods"].clear()
        made.settle()
        assert made.created[-1] == "tiny-train-1"

    def test_one_that_the_operator_may_not_read(self) -> None:
        made = world()
        made.refusal = "the operator may not get deployments lab/ollama: no (chart value rbac.yieldFrom)"
        made.settle()
        assert made.status().message.startswith("spec.placement.yieldFrom[0]: the operator may not get")
        assert made.created == ["tiny-prepare-1"]


ME = Holder("me", "lab", "tiny", "tiny-train-1")
OTHER = Holder("other", "shop", "big", "big-train-3")


def room(raw: dict[str, Any], *, pods: tuple[str, ...] = ()) -> Any:
    class Run:
        uid, namespace, name = ME.uid, ME.namespace, ME.name

    return make_room([Yielding("lab", "ollama", raw, pods)], run=Run(), job=ME.job)  # type: ignore[arg-type]


class TestWhatIsWritten:
    def test_a_second_run_joins_and_keeps_what_was_noted(self) -> None:
        (patch,) = room(deployment(0, note=Note(3, (OTHER,)))).actions
        assert patch.body["spec"] == {"replicas": 0}
        assert json.loads(patch.body["metadata"]["annotations"][YIELDED_ANNOTATION]) == {
            "replicas": 3,
            "to": {
                "me": {"run": "lab/tiny", "job": "tiny-train-1"},
                "other": {"run": "shop/big", "job": "big-train-3"},
            },
        }

    def test_one_that_is_down_for_this_job_already_is_left_alone(self) -> None:
        assert room(deployment(0, note=Note(3, (OTHER, ME)))) is None

    def test_what_somebody_has_scaled_up_meanwhile_goes_down_again_and_comes_back_so(self) -> None:
        (patch,) = room(deployment(5, note=Note(3, (ME,)))).actions
        assert json.loads(patch.body["metadata"]["annotations"][YIELDED_ANNOTATION])["replicas"] == 5

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"replicas": "many", "to": {}}', '{"replicas": 1, "to": {"a": 1}}']
    )
    def test_a_note_that_cannot_be_read_is_nobodys(self, text: str) -> None:
        raw = deployment(1)
        raw["metadata"]["annotations"] = {YIELDED_ANNOTATION: text}
        assert Note.on(raw) is None
        patch = give_back(raw, needs=lambda holder: True)
        assert patch is not None
        assert "spec" not in patch.body

    def test_it_comes_back_when_nobody_needs_its_place(self) -> None:
        raw = deployment(0, note=Note(3, (OTHER, ME)))
        assert give_back(raw, needs=lambda holder: True) is None
        one_left = give_back(raw, needs=lambda holder: holder == ME)
        assert one_left is not None
        assert "spec" not in one_left.body
        assert json.loads(one_left.body["metadata"]["annotations"][YIELDED_ANNOTATION])["to"].keys() == {"me"}
        back = give_back(raw, needs=lambda holder: False)
        assert back is not None
        assert back.body == {
            "metadata": {
                "resourceVersion": "7",
                "labels": {YIELDED_LABEL: None},
                "annotations": {YIELDED_ANNOTATION: None},
            },
            "spec": {"replicas": 3},
        }

    def test_what_was_scaled_by_hand_stays_as_it_is(self) -> None:
        back = give_back(deployment(1, note=Note(3, (ME,))), needs=lambda holder: False)
        assert back is not None
        assert "spec" not in back.body


def a_run(
    *, uid: str = "me", suspend: bool = False, state: str = "Training", train: str = "Running", ended: str = ""
) -> Any:
    conditions = [
        {"type": ended, "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
         "observedGeneration": 1}
    ] if ended else []  # fmt: skip
    return {
        "metadata": {"uid": uid},
        "spec": {"suspend": suspend},
        "status": {"state": state, "conditions": conditions, "steps": [{"name": "train", "state": train}]},
    }


@pytest.mark.parametrize(
    ("run", "needs"),
    [
        (a_run(), True),
        (a_run(train="Waiting"), True),
        (a_run(suspend=True), True),  # its pod still saves
        (a_run(suspend=True, state="Suspended"), False),
        (a_run(suspend=False, state="Suspended", train="Waiting"), False),  # it takes it anew when it goes on
        (a_run(train="Succeeded", state="Evaluating"), False),
        (a_run(train="Failed", ended="Failed"), False),
        (a_run(ended="Complete"), False),
        (a_run(uid="another"), False),
        (None, False),
    ],
)
def test_who_needs_it(run: Any, needs: bool) -> None:
    assert still_needs(ME, run) is needs


@dataclass
class Server:
    """One Deployment that anybody may write, onto the version that he has read; and its pods, which take a while to go."""

    raw: dict[str, Any] = field(default_factory=lambda: deployment(2, version="1"))
    pods: int = 2

    def read(self) -> dict[str, Any]:
        return copy.deepcopy(self.raw)

    def write(self, patch: Patch) -> bool:
        metadata, body = self.raw["metadata"], patch.body
        if body["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            return False
        for key in ("labels", "annotations"):
            merged = {**metadata.get(key, {}), **body["metadata"].get(key, {})}
            metadata[key] = {k: v for k, v in merged.items() if v is not None}
        self.raw["spec"] |= body.get("spec", {})
        metadata["resourceVersion"] = str(int(metadata["resourceVersion"]) + 1)
        return True

    def pods_follow(self, dice: random.Random) -> None:
        wanted = self.raw["spec"]["replicas"]
        self.pods += dice.choice((0, 1, -1)) if self.pods != wanted else 0
        self.pods = min(max(self.pods, 0), 2)
        if self.pods > wanted and dice.random() < 0.5:
            self.pods -= 1
        self.raw["status"] = {"replicas": self.pods}


def one_life(seed: int, *, runs: int) -> tuple[int, int]:
    """Runs and a Deployment on one device, an operator that dies between any two requests. Returns trainings and kills.

    Nothing keeps pods apart here but what is written on the Deployment: the device takes whoever comes.
    """
    dice = random.Random(seed)
    server = Server()
    states = ["waiting"] * runs
    """waiting -> training -> over, or suspended in between."""
    attempts = [0] * runs
    trained = kills = 0
    pending: list[Any] = []
    """What operators are about to do, with what they have read: those that were killed never do it, late ones do it late."""

    def raw_run(number: int) -> Any:
        over, paused = states[number] == "over", states[number] == "suspended"
        train = "Succeeded" if over else "Running" if states[number] == "training" else "Waiting"
        return a_run(uid=str(number), suspend=paused, state="Suspended" if paused else "Training", train=train)

    def begin(number: int) -> None:
        job = f"r{number}-train-{attempts[number] + 1}"
        me = Holder(str(number), "lab", f"r{number}", job)
        seen = server.read()

        class Run:
            uid, namespace, name = me.uid, me.namespace, me.name

        pods = tuple(f"p{n}" for n in range(server.pods))
        wanted = make_room([Yielding("lab", "ollama", seen, pods)], run=Run(), job=job)  # type: ignore[arg-type]

        def do() -> None:
            nonlocal trained
            if wanted is None:
                if states[number] == "waiting":
                    assert server.raw["spec"]["replicas"] == 0, f"seed {seed}: it serves while {job} begins"
                    states[number], attempts[number] = "training", attempts[number] + 1
                    trained += 1
            else:
                for patch in wanted.actions:
                    server.write(patch)

        # A look at a run reads and makes the Job in one go, by the one process that holds the Lease.
        do()

    def look_back() -> None:
        raw = server.read()
        note = Note.on(raw)
        if note is None:
            return
        needed = {h for h in note.holders if still_needs(h, raw_run(int(h.uid)))}
        if (patch := give_back(raw, needs=needed.__contains__)) is not None:
            pending.append(patch)

    for _ in range(400 * runs):
        server.pods_follow(dice)
        number = dice.randrange(runs)
        match dice.randrange(6):
            case 0 | 1 if states[number] == "waiting":
                begin(number)
            case 2:
                look_back()
            case 3 if pending:
                server.write(pending.pop(dice.randrange(len(pending))))
            case 4 if states[number] == "training":
                assert (server.raw["spec"]["replicas"], server.pods) == (0, 0), f"seed {seed}: both are on it"
                states[number] = dice.choice(("over", "training", "suspended", "waiting"))
            case 5 if states[number] == "suspended":
                states[number] = "waiting"
            case 5 if pending and dice.random() < 0.3:
                pending.clear()
                kills += 1
    for number in range(runs):
        while states[number] != "over":
            server.pods = 0 if server.raw["spec"]["replicas"] == 0 else server.pods
            server.raw["status"] = {"replicas": server.pods}
            begin(number)
            states[number] = "over" if states[number] == "training" else "waiting"
    for _ in range(3):
        look_back()
        while pending:
            server.write(pending.pop(0))
    assert server.raw["spec"]["replicas"] == 2, f"seed {seed}: it never came back"
    assert not server.raw["metadata"]["annotations"]
    assert not server.raw["metadata"]["labels"]
    return trained, kills


def test_never_both_and_always_back_in_any_order_and_over_kills() -> None:
    lives = [one_life(seed, runs=dice) for seed, dice in enumerate([1, 2, 3, 5, 10] * 12)]
    lives.append(one_life(4711, runs=100))
    trained, kills = map(sum, zip(*lives, strict=True))
    assert trained > 500
    assert kills > 200
