"""The frame of an export: what a target gets, what is left behind, and that it is not sent twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.run_contexts import context_of
from trainyard.api.run.exports import TARGETS, Export, Target
from trainyard.api.run.targets.hub import Hub
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError
from trainyard.trainer.exports import check_targets, hub
from trainyard.trainer.exports.exported import Exported, digest_of, read_exported
from trainyard.trainer.frame.export import export
from trainyard.trainer.frame.promote import promote, roll_back
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import commit_folder


def target(name: str, *after: str, repo: str = "org/{agent}-{version}") -> dict[str, Any]:
    return {"name": name, "dependsOn": list(after), "hub": {"repo": repo, "secretRef": {"name": "hub"}}}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, dict[str, Exported]]]:
    """A hub that takes everything, and what it was told."""
    seen: list[tuple[str, str, dict[str, Exported]]] = []

    def send(
        context: RunContext, one: Export, filled: Hub, inputs: Mapping[str, Exported], reporter: Reporter
    ) -> Exported:
        seen.append((one.name, filled.repo, dict(inputs)))
        return Exported(f"hf://{filled.repo}@{len(seen)}", "sha256:1", version=str(len(seen)), facts={"a": "b"})

    monkeypatch.setattr(hub, "send", send)
    monkeypatch.setattr(hub, "check", lambda context, one, filled: seen.append((one.name, filled.repo, {})))
    return seen


def run_with(tmp_path: Path, *exports: dict[str, Any], trained: bool = True) -> RunContext:
    spec = {
        "model": {"storageUri": "hf://org/base"},
        "datasets": [{"name": "d", "inline": {"text": "a"}}],
        "training": {"method": "SFT"},
        "owner": {"agent": "sre"},
        "versioning": {"version": "v{commit}"},
        "exports": list(exports),
    }
    context = replace(context_of(tmp_path, spec), step="export")
    if trained:
        train(context, b"weights")
    return context


def train(context: RunContext, weights: bytes) -> None:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(weights)

    commit_folder(context.model_dir, write, step=1, time="now")


def do(context: RunContext, name: str) -> dict[str, Any]:
    reporter = Reporter(f"export-{name}", 1)
    export(context, reporter, name=name)
    record = reporter.final_record("Succeeded")
    assert record.export is not None
    return record.export.model_dump()


def test_a_target_gets_its_texts_filled_in_and_what_comes_before_it(tmp_path: Path, sent: list[Any]) -> None:
    context = run_with(tmp_path, target("first"), target("second", "first", repo="org/{digest}"))
    assert do(context, "first") == {"uri": "hf://org/sre-vu@1", "digest": "sha256:1", "version": "1"}
    do(context, "second")
    digest = digest_of(
        commit_folder(tmp_path / "same", lambda f: (f / "model.safetensors").write_bytes(b"weights") and None)
    )
    assert sent[0] == ("first", "org/sre-vu", {})
    assert sent[1][1] == f"org/{digest.removeprefix('sha256:')[:12]}"
    assert sent[1][2] == {"first": Exported("hf://org/sre-vu@1", "sha256:1", "1", (), {"a": "b"})}


def test_the_same_result_is_not_sent_twice_and_another_one_is(tmp_path: Path, sent: list[Any]) -> None:
    context = run_with(tmp_path, target("first"))
    assert do(context, "first") == do(context, "first")
    assert len(sent) == 1
    train(context, b"other weights")
    do(context, "first")
    assert len(sent) == 2


def test_what_was_interrupted_is_sent_again(tmp_path: Path, sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def killed_here(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    context = run_with(tmp_path, target("first"))
    with monkeypatch.context() as killed:
        killed.setattr("trainyard.trainer.frame.export.write_exported", killed_here)
        with pytest.raises(KeyboardInterrupt):
            do(context, "first")
    assert read_exported(context, "first") is None
    do(context, "first")
    assert len(sent) == 2


def test_what_is_missing_is_told_with_the_way_out(tmp_path: Path, sent: list[Any]) -> None:
    context = run_with(tmp_path, target("first"), target("second", "first", repo="org/b"), trained=False)
    with pytest.raises(UserError, match="there is no trained model"):
        do(context, "first")
    train(context, b"weights")
    with pytest.raises(UserError, match="export first has left no record"):
        do(context, "second")
    with pytest.raises(UserError, match="export third: there are first, second"):
        do(context, "third")
    assert not sent


def test_the_prepare_step_asks_every_target_with_its_texts_filled_in(tmp_path: Path, sent: list[Any]) -> None:
    check_targets(run_with(tmp_path, target("first"), target("second", repo="org/{digest}"), trained=False))
    assert [(name, repo) for name, repo, _ in sent] == [("first", "org/sre-vu"), ("second", "org/000000000000")]
    with pytest.raises(UserError, match="with its placeholders filled in") as e:
        check_targets(run_with(tmp_path, target("first", repo="org/{name}" + "-{model}" * 9), trained=False))
    assert "spec.versioning" in e.value.hint


def test_aliases_are_moved_and_moved_back_in_the_other_order(
    tmp_path: Path, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TARGETS, "hub", Target(promotes=lambda one: "quiet" not in one.repo))
    moved: list[tuple[str, str, str]] = []
    for verb in ("promote", "back"):
        monkeypatch.setattr(
            hub,
            verb,
            lambda context, one, filled, exported, v=verb: moved.append((v, one.name, exported.version)),
            raising=False,
        )
    context = run_with(tmp_path, target("a"), target("b", repo="org/b"), target("c", repo="org/quiet"))
    for name in ("a", "b", "c"):
        do(context, name)
    promote(context)
    roll_back(context)
    assert moved == [("promote", "a", "1"), ("promote", "b", "2"), ("back", "b", "2"), ("back", "a", "1")]
