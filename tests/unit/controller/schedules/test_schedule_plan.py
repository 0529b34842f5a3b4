"""The planner's decisions, one situation at a time."""

from typing import Any

import pytest

from tests.unit.controller.schedules.world import World, manifest


def minutes(text: str) -> str:
    return str(int(World().at(text).now.timestamp()) // 60)


def reasons(world: World) -> list[str]:
    return [n.reason.value for n in world.notices]


def ready(world: World) -> tuple[str, str]:
    return next((c.status, c.reason) for c in world.status.conditions or () if c.type == "Ready")


def counts(world: World) -> dict[str, int]:
    return {k: v for k, v in (world.status.runs.model_dump() if world.status.runs else {}).items() if v}


def test_the_first_look_starts_nothing_and_says_what_comes_next() -> None:
    world = World()
    decided = world.settle()
    assert world.created == []
    assert world.status.next_schedule_time == "2026-01-01T01:00:00Z"
    assert (world.status.state, world.status.message) == ("Scheduled", "next start at 2026-01-01T01:00:00Z")
    assert ready(world) == ("True", "Scheduled")
    assert decided.requeue_after == 3599.0


def test_a_slot_makes_one_run_named_after_it() -> None:
    world = World()
    world.settle()
    world.at("2026-01-01T01:00:00").settle()
    name = f"hourly-{minutes('2026-01-01T01:00')}"
    assert world.created == [name]
    assert world.status.last_schedule_time == "2026-01-01T01:00:00Z"
    assert world.status.next_schedule_time == "2026-01-01T02:00:00Z"
    assert [a.name for a in world.status.active or ()] == [name]
    metadata = world.runs[name]["metadata"]
    assert metadata["labels"]["trainyard.dev/schedule"] == "hourly"
    assert metadata["annotations"]["trainyard.dev/scheduled-time"] == "2026-01-01T01:00:00Z"
    assert metadata["ownerReferences"][0]["controller"] is True
    env = {e["name"]: e["value"] for e in world.runs[name]["spec"]["podTemplate"]["env"]}
    assert env == {"SCHEDULED_TIME": "2026-01-01T01:00:00Z", "WINDOW_END": "2026-01-01T01:00:00Z"}
    world.end(name)
    world.settle()
    assert world.status.active is None
    assert world.status.last_successful_time == "2026-01-01T01:00:00Z"
    assert counts(world) == {"created": 1, "succeeded": 1}


def test_the_window_goes_from_start_to_start() -> None:
    world = World(manifest(schedule="0 * * * *", concurrencyPolicy="Allow"))
    for hour in (0, 1, 2):
        world.at(f"2026-01-01T0{hour}:00:01").settle()
    env = {e["name"]: e["value"] for e in world.runs[world.created[1]]["spec"]["podTemplate"]["env"]}
    assert (env["WINDOW_START"], env["WINDOW_END"]) == ("2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z")


def test_a_schedule_that_was_made_while_nobody_watched_starts_its_first_slot() -> None:
    world = World().at("2026-01-01T01:00:30")
    world.settle()
    assert len(world.created) == 1


@pytest.mark.parametrize(
    ("catch_up", "created", "missed"),
    [("Skip", [], 3), ("RunOnce", [f"hourly-{minutes('2026-01-01T03:00')}"], 2)],
)
def test_three_slots_without_an_operator(catch_up: str, created: list[str], missed: int) -> None:
    world = World(manifest(schedule="0 * * * *", catchUp=catch_up))
    world.settle()
    world.at("2026-01-01T03:30:00").settle()
    assert world.created == created
    assert world.status.runs is not None
    assert world.status.runs.missed == missed
    assert "MissedSchedule" in reasons(world)
    world.pass_time(60)
    before = world.writes
    world.settle()
    assert world.writes == before


def test_the_newest_of_three_slots_starts_within_its_deadline() -> None:
    world = World()
    world.settle()
    world.at("2026-01-01T03:04:59").settle()
    assert world.created == [f"hourly-{minutes('2026-01-01T03:00')}"]
    assert counts(world) == {"created": 1, "missed": 2}


def test_forbid_waits_for_the_end_and_skips_after_the_deadline() -> None:
    world = World(manifest(startingDeadlineSeconds=600))
    for text in ("00:00:01", "01:00:00"):
        world.at(f"2026-01-01T{text}").settle()
    first = world.created[0]
    decided = world.at("2026-01-01T02:00:00").settle()
    assert world.status.state == "Waiting"
    assert first in (world.status.message or "")
    assert decided.requeue_after == pytest.approx(600, abs=1)
    world.at("2026-01-01T02:05:00").end(first)
    world.settle()
    assert world.created == [first, f"hourly-{minutes('2026-01-01T02:00')}"]
    world.at("2026-01-01T03:10:01").settle()
    assert len(world.created) == 2
    assert counts(world) == {"created": 2, "succeeded": 1, "skipped": 1}


def test_allow_does_not_wait() -> None:
    world = World(manifest(concurrencyPolicy="Allow", schedule="0 * * * *"))
    for hour in range(4):
        world.at(f"2026-01-01T0{hour}:00:01").settle()
    assert len(world.live()) == 3


def test_replace_cancels_and_starts_when_the_old_run_has_ended() -> None:
    world = World(manifest(concurrencyPolicy="Replace", schedule="0 * * * *"))
    for text in ("00:00:01", "01:00:00", "02:00:00"):
        world.at(f"2026-01-01T{text}").settle()
    assert len(world.created) == 1
    assert world.status.state == "Waiting"
    old = world.created[0]
    assert world.runs[old]["metadata"]["annotations"]["trainyard.dev/cancel"].startswith("replaced by")
    world.pass_time(90)
    world.end(old, reason="Cancelled")
    world.settle()
    assert world.created == [old, f"hourly-{minutes('2026-01-01T02:00')}"]
    assert counts(world) == {"created": 2, "failed": 1}


def test_replace_takes_the_newest_of_the_starts_that_wait() -> None:
    world = World(manifest(concurrencyPolicy="Replace", schedule="0 * * * *"))
    for text in ("00:00:01", "01:00:00", "02:00:00", "03:00:00"):
        world.at(f"2026-01-01T{text}").settle()
    world.end(world.created[0], reason="Cancelled")
    world.settle()
    assert world.created[1:] == [f"hourly-{minutes('2026-01-01T03:00')}"]
    assert counts(world) == {"created": 2, "failed": 1, "skipped": 1}


def test_an_edit_of_the_clock_starts_nothing() -> None:
    world = World().at("2026-01-01T00:10:00")
    world.settle()
    world.at("2026-01-01T00:50:00").edit(schedule="*/5 * * * *")
    world.settle()
    assert world.created == []
    assert world.status.next_schedule_time == "2026-01-01T00:55:00Z"
    assert counts(world) == {}
    world.edit(schedule=None, intervalSeconds=3600)
    world.settle()
    assert world.created == []
    assert world.status.next_schedule_time == "2026-01-01T01:50:00Z"


def test_a_suspended_schedule_makes_up_for_nothing() -> None:
    world = World()
    world.settle()
    world.edit(suspend=True)
    world.settle()
    assert (world.status.state, ready(world), world.status.next_schedule_time) == (
        "Suspended",
        ("True", "Suspended"),
        None,
    )
    before = world.writes
    world.at("2026-01-01T05:00:30").settle()
    assert world.writes == before
    world.edit(suspend=False)
    world.settle()
    assert (world.created, counts(world)) == ([], {})
    world.at("2026-01-01T06:00:00").settle()
    assert len(world.created) == 1


def test_run_now_starts_once_for_each_new_value_even_while_suspended() -> None:
    world = World(manifest(suspend=True, schedule="0 * * * *", concurrencyPolicy="Allow"))
    world.annotate(run_now="1")
    world.settle()
    world.settle()
    assert world.created == [f"hourly-{int(world.now.timestamp())}"]
    world.annotate(run_now="2")
    world.settle()
    assert len(set(world.created)) == 2


def test_run_now_with_overrides_reaches_the_run_and_nothing_else() -> None:
    world = World()
    world.annotate(run_now="1", run_now_overrides='{"training": {"maxSteps": 3}, "evaluation": {"enabled": false}}')
    world.settle()
    spec = world.runs[world.created[0]]["spec"]
    assert spec["training"] == {"method": "Pretrain", "maxSteps": 3}
    assert world.schedule["spec"]["template"]["spec"]["training"]["maxSteps"] == 10


@pytest.mark.parametrize("overrides", ["{", "[1]", '{"training": {"maxStep": 3}}'])
def test_run_now_with_wrong_overrides_says_so_and_starts_nothing(overrides: str) -> None:
    world = World()
    world.annotate(run_now="1", run_now_overrides=overrides)
    world.settle()
    assert world.created == []
    assert reasons(world) == ["InvalidRunNow"]


def test_run_now_for_some_of_the_variants() -> None:
    world = World(manifest(variants=[{"name": n} for n in "abc"], variantPolicy="Parallel"))
    world.annotate(run_now="1", run_now_variants="a, c")
    world.settle()
    assert [n.split("-")[1] for n in world.created] == ["a", "c"]
    for name in world.created:
        world.end(name)
    world.at("2026-01-01T01:00:00").settle()
    assert [n.split("-")[1] for n in world.created] == ["a", "c", "a", "b", "c"]


@pytest.mark.parametrize("variants", [(), ({"name": "a"},)])
def test_run_now_for_a_variant_that_is_not_there(variants: tuple[dict[str, str], ...]) -> None:
    world = World(manifest(variants=list(variants)))
    world.annotate(run_now="1", run_now_variants="b")
    world.settle()
    assert (world.created, reasons(world)) == ([], ["InvalidRunNow"])


def test_variants_one_after_the_other() -> None:
    variants = [{"name": n, "patch": {"training": {"seed": i}}} for i, n in enumerate("abc")]
    world = World(manifest(schedule="0 * * * *", variants=variants))
    world.settle()
    world.at("2026-01-01T01:00:00").settle()
    assert [n.split("-")[1] for n in world.created] == ["a"]
    world.end(world.created[0], reason="Error")
    world.settle()
    world.end(world.created[1])
    world.settle()
    assert [n.split("-")[1] for n in world.created] == ["a", "b", "c"]
    assert world.runs[world.created[2]]["spec"]["training"]["seed"] == 2
    assert world.status.firing is None
    assert world.runs[world.created[2]]["metadata"]["labels"]["trainyard.dev/variant"] == "c"


def test_a_variant_that_is_refused_does_not_hold_up_the_others() -> None:
    variants = [{"name": n} for n in "abc"]
    world = World(manifest(schedule="0 * * * *", variants=variants, variantPolicy="Parallel"))
    world.settle()
    world.refuse[f"hourly-b-{minutes('2026-01-01T01:00')}"] = "admission webhook says no"
    world.at("2026-01-01T01:00:00").settle()
    assert [n.split("-")[1] for n in world.created] == ["a", "c"]
    assert counts(world) == {"created": 2, "skipped": 1}
    assert "RunRefused" in reasons(world)


def test_variants_that_make_no_valid_run_are_refused_before_any_start() -> None:
    world = World(manifest(schedule="0 * * * *", variants=[{"name": "a", "patch": {"training": {"maxStep": 5}}}]))
    world.at("2026-01-01T01:00:00").settle()
    assert (world.created, world.status.state, ready(world)) == ([], "Invalid", ("False", "InvalidSpec"))
    assert "spec.variants[0] (a): spec.training.maxStep" in (world.status.message or "")
    world.edit(variants=None)
    world.settle()
    assert (world.created, world.status.state) == ([], "Scheduled")


def test_an_unknown_zone_is_told() -> None:
    world = World(manifest(schedule="0 * * * *", timeZone="Europe/Atlantis"))
    world.settle()
    assert ready(world) == ("False", "UnknownTimeZone")
    assert any(c.type == "Stalled" and c.status == "True" for c in world.status.conditions or ())


def test_history_limits_hold_for_each_variant_and_keep_what_is_not_booked() -> None:
    world = World(manifest(schedule="0 * * * *", successfulRunsHistoryLimit=2, failedRunsHistoryLimit=1))
    for hour in range(1, 8):
        world.at(f"2026-01-01T0{hour}:00:00").settle()
        world.end(world.live()[0], reason="Succeeded" if hour % 2 else "Error")
        world.settle()
    assert len(world.created) == 7
    assert sorted(world.runs) == [f"hourly-{minutes(f'2026-01-01T0{h}:00')}" for h in (5, 6, 7)]
    assert counts(world) == {"created": 7, "succeeded": 4, "failed": 3}


def test_min_interval_holds_a_slot_back_and_then_skips_it() -> None:
    world = World(manifest(schedule="0,2,30 * * * *", minIntervalSeconds=1200, startingDeadlineSeconds=300))
    world.settle()
    for text in ("00:02:00", "00:07:01", "00:30:00"):
        world.at(f"2026-01-01T{text}").settle()
        for name in world.live():
            world.end(name)
        world.settle()
    assert world.created == [f"hourly-{minutes(f'2026-01-01T00:{m}')}" for m in ("02", "30")]
    world.at("2026-01-01T01:00:00").settle()
    world.end(world.live()[0])
    world.at("2026-01-01T01:07:01").settle()
    assert counts(world)["skipped"] == 1


def test_unchanged_data_and_spec_are_handed_to_the_run_as_nothing_new() -> None:
    world = World(manifest(schedule="0 * * * *", skipIfUnchanged=True))
    world.settle()
    note = "trainyard.dev/skip-if-dataset"

    def annotations(hour: int) -> dict[str, Any]:
        world.at(f"2026-01-01T{hour:02}:00:00").settle()
        found: dict[str, Any] = world.runs[world.created[-1]]["metadata"]["annotations"]
        return found

    assert note not in annotations(1)
    world.end(world.created[-1], dataset="sha256:one")
    assert annotations(2)[note] == "sha256:one"
    world.end(world.created[-1], reason="Unchanged", dataset="sha256:one")
    world.settle()
    assert counts(world) == {"created": 2, "succeeded": 1, "skipped": 1}
    world.edit(template={"spec": world.schedule["spec"]["template"]["spec"] | {"debugSteps": 7}})
    assert note not in annotations(3)
    world.end(world.created[-1], dataset="sha256:two")
    world.settle()
    world.annotate(run_now="force 1")
    world.settle()
    assert note not in world.runs[world.created[-1]]["metadata"]["annotations"]


def test_a_deleted_run_is_not_made_again() -> None:
    world = World()
    world.settle()
    world.at("2026-01-01T01:00:00").settle()
    del world.runs[world.created[0]]
    world.settle()
    assert len(world.created) == 1
    assert world.status.active is None
