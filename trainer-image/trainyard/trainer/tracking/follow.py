"""From what a step reports to the trackers that the run names.

The training thread appends a line to a file on the volume and goes on; a daemon thread delivers. Whatever becomes of the
server, the training never waits for it and never fails by it. Only the end of a step gives delivery some seconds, and
more only as long as it gets on (a model may be large).
"""

from __future__ import annotations

import json
import math
import secrets
import threading
import time
from pathlib import Path
from typing import Any

from trainyard.api.addresses import keep_secret, told
from trainyard.api.run.tracking import MlflowTracking
from trainyard.api.steps import STEP_EVALUATE, is_train
from trainyard.trainer.context import RunContext
from trainyard.trainer.log import say, warn
from trainyard.trainer.reporter import Metrics, Reporter
from trainyard.trainer.tracking.mlflow import Mlflow, batches
from trainyard.trainer.tracking.outbox import Entry, Outbox
from trainyard.trainer.tracking.rest import Away, Refused
from trainyard.trainer.tracking.tensorboard import EventFile

PATIENCE = 20.0
"""Seconds without any delivery after which the end of a step does not wait any longer."""
LONGEST_BACKOFF = 60.0


class Tracking:
    """The followers of one step."""

    def __init__(self, context: RunContext, reporter: Reporter, *, is_last_step: bool) -> None:
        """`is_last_step`: with its success the whole run has succeeded."""
        spec = context.run.spec.tracking
        assert spec is not None
        self._context = context
        self._reporter = reporter
        self._is_last_step = is_last_step
        self._prefix = f"{context.phase}/" if context.phase else ""
        self._events: EventFile | None = None
        if spec.tensorboard and is_train(context.step):
            self._events = EventFile(context.run_dir / "logs" / (context.phase or ""), attempt=context.attempt)
        self._outbox: Outbox | None = None
        self._courier: Courier | None = None
        if spec.mlflow is not None:
            self._outbox = Outbox(context.run_dir / "tracking")
            self._courier = Courier(context, spec.mlflow, self._outbox, reporter)
            if context.attempt > 1:
                self._add({"status": "RUNNING"})
        reporter.listen(self.metrics)

    def metrics(self, step: int | None, values: Metrics) -> None:
        """New numbers. The evaluation after the training is of no step; it is noted at the last one."""
        finite = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        if self._events is not None and step is not None and finite:
            try:
                self._events.add(step, finite)
            except OSError as error:
                warn(f"no more event files for TensorBoard: {error}")
                self._events = None
        if self._outbox is None or not finite:
            return
        if self._context.step == STEP_EVALUATE:
            finite = {f"evaluation/{name.removeprefix('eval_')}": value for name, value in finite.items()}
            step = self._outbox.last_step
        self._describe()
        named = {self._prefix + name: value for name, value in finite.items()}
        self._add({"metrics": named, "step": step or 0, "time": int(time.time() * 1000)})

    def close(self, *, succeeded: bool) -> None:
        """The step has ended: hand over its results, and wait for delivery as long as there is any."""
        if self._outbox is None or self._courier is None:
            return
        if succeeded:
            self._describe()
            for name in self._results():
                self._add({"artifact": name}, once=f"{name} {self._context.attempt}")
        if not succeeded or self._is_last_step:
            self._add({"status": "FINISHED" if succeeded else "FAILED", "time": int(time.time() * 1000)})
        self._courier.close()
        if left := self._outbox.left:
            warn(f"{left} entries for MLflow wait on the volume; " + self._later())

    def _later(self) -> str:
        if self._is_last_step:
            return f"they stay in {self._context.run_dir.name}/tracking"
        return "the next step sends them"

    def _describe(self) -> None:
        """Parameters and data, once, when the step knows them."""
        assert self._outbox is not None
        if (made := self._reporter.fact("dataset")) is not None:
            digest = made["digest"]
            tags = {self._prefix + "trainyard.dev/dataset-digest": digest}
            self._add({"tags": tags}, once=f"digest {self._prefix}{digest}")
            sources = ", ".join(told(d.storage_uri or d.name) for d in self._context.datasets)
            profile = json.dumps({"records": made["records"], "tokens": made["tokens"]})
            dataset = {"name": sources[:400], "digest": digest[:36], "profile": profile}
            self._add({"dataset": dataset}, once=f"dataset {self._prefix}{digest}")
        if is_train(self._context.step):
            known = parameters(self._context) | {
                k: v for k, v in (self._reporter.fact("effective") or {}).items() if v is not None
            }
            self._add(
                {"parameters": {self._prefix + k: v for k, v in known.items()}}, once=f"parameters {self._prefix}"
            )

    def _results(self) -> list[str]:
        context, spec = self._context, self._context.run.spec.tracking
        folders = [context.evaluation_dir] if context.step == STEP_EVALUATE else []
        if is_train(context.step):
            folders += [context.work_dir / "samples"]
        if is_train(context.step) and spec and spec.mlflow and spec.mlflow.log_model:
            folders += [context.model_dir if context.model_dir.is_dir() else context.adapter_dir]
        files = [f for folder in folders if folder.is_dir() for f in sorted(folder.rglob("*")) if f.is_file()]
        return [str(f.relative_to(context.run_dir)) for f in files]

    def _add(self, entry: Entry, *, once: str = "") -> None:
        assert self._outbox is not None
        assert self._courier is not None
        try:
            self._outbox.add(entry, once=once)
        except OSError as error:
            self._courier.tell(f"nothing can be noted for MLflow: {error}")
            return
        self._courier.wake()


class Courier:
    """The thread that takes entries to the server."""

    def __init__(self, context: RunContext, spec: MlflowTracking, outbox: Outbox, reporter: Reporter) -> None:
        self._context, self._outbox, self._reporter = context, outbox, reporter
        secret = secret_of(context, spec)
        self._server = Mlflow.at(spec.tracking_uri, experiment=spec.experiment, secret=secret)
        self._known = context.run_dir / "tracking" / "run.json"
        self._run, self._artifacts = "", ""
        self._told: set[str] = set()
        self._away = False
        self._woken = threading.Condition()
        self._has_news, self._closing = True, False
        self._thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)
        if self._known.exists():
            known = json.loads(self._known.read_text())
            if known["uri"] == spec.tracking_uri:
                self._note(known["run"], known["artifacts"])
        self._thread.start()

    def wake(self) -> None:
        """There is something new."""
        with self._woken:
            self._has_news = True
            self._woken.notify()

    def tell(self, line: str) -> None:
        """Once, however often it happens."""
        if line not in self._told:
            self._told.add(line)
            warn(line)

    def close(self, patience: float = PATIENCE) -> None:
        """Wait until all is delivered, or nothing has been for a while."""
        with self._woken:
            self._closing = True
            self._woken.notify()
        left = self._outbox.left
        while self._thread.is_alive():
            self._thread.join(patience)
            if (now := self._outbox.left) >= left:
                return
            left = now

    def _loop(self) -> None:
        backoff = 1.0
        while True:
            with self._woken:
                while not (self._has_news or self._closing):
                    self._woken.wait()
                self._has_news = False
            try:
                self._deliver()
            except Away as error:
                if not self._away:
                    say(f"MLflow is away ({error}); what it misses waits on the volume, the training goes on")
                self._away = True
                with self._woken:
                    if self._closing:
                        return
                    self._has_news = True
                    self._woken.wait_for(lambda: self._closing, backoff)
                backoff = min(2 * backoff, LONGEST_BACKOFF)
                continue
            except Exception as error:
                # A tracker must never end a training, whatever it is that nobody thought of.
                self.tell(f"MLflow: {type(error).__name__}: {error}; nothing more is sent by this step")
                return
            if self._away:
                say("MLflow is back, and has what it missed")
            self._away, backoff = False, 1.0
            with self._woken:
                if self._closing and not self._has_news:
                    return

    def _deliver(self) -> None:
        while waiting := self._outbox.waiting():
            if not self._run:
                self._open()
            for mark, entries in batches(waiting):
                try:
                    self._server.send(self._run, self._artifacts, entries, folder=self._context.run_dir)
                except Refused as error:
                    kind = next(iter(entries[0].keys() - {"once"}))
                    self.tell(f"MLflow does not take {kind}: {error}")
                self._outbox.delivered(mark)

    def _open(self) -> None:
        context = self._context
        tags = {
            "trainyard.dev/run": context.run.metadata.name,
            "trainyard.dev/namespace": context.run.metadata.namespace,
        }
        try:
            run, artifacts = self._server.open_run(name=context.run.metadata.name, uid=_uid(context), tags=tags)
        except Refused as error:
            raise Away(str(error)) from None
        known = {"run": run, "artifacts": artifacts, "uri": self._context.run.spec.tracking.mlflow.tracking_uri}  # type: ignore[union-attr]
        self._known.write_text(json.dumps(known))
        self._note(run, artifacts)
        say(f"MLflow run {run}")

    def _note(self, run: str, artifacts: str) -> None:
        self._run, self._artifacts = run, artifacts
        self._reporter.report(mlflow_run_id=run, milestone=True)


def follow(context: RunContext, reporter: Reporter, *, is_last_step: bool) -> Tracking | None:
    """The trackers of a step; None where there are none."""
    spec = context.run.spec.tracking
    if spec is None or context.run.spec.mode == "DryRun":
        return None
    try:
        return Tracking(context, reporter, is_last_step=is_last_step)
    except OSError as error:
        warn(f"this step is not tracked: {error}")
        return None


def parameters(context: RunContext) -> dict[str, Any]:
    """What a person would compare runs by: hyperparameters by their Hugging Face names, and the model."""
    training = context.training.model_dump(mode="json", exclude_none=True)
    found = {**training.pop("extra_args", {}), **training}
    if context.model.storage_uri:
        found["model"] = told(context.model.storage_uri)
    elif context.model.scratch is not None:
        found["model"] = f"scratch {context.model.scratch.architecture}"
    if context.model.adapter is not None:
        lora = context.model.adapter.model_dump(mode="json", exclude_none=True).get("lora") or {}
        found |= {f"lora_{name}": value for name, value in lora.items()}
    return found


def _uid(context: RunContext) -> str:
    if context.uid != "local":
        return context.uid
    path = context.run_dir / "tracking" / "uid"
    if not path.exists():
        path.write_text(secrets.token_hex(16))
    return path.read_text()


def secret_of(context: RunContext, spec: MlflowTracking) -> dict[str, str]:
    if spec.secret_ref is None:
        return {}
    folder: Path = context.secrets_dir / spec.secret_ref.name
    if not folder.is_dir():
        warn(f"secret {spec.secret_ref.name} of spec.tracking.mlflow.secretRef is not mounted at {folder}")
        return {}
    found = {f.name: f.read_text().strip() for f in folder.iterdir() if f.is_file() and not f.name.startswith(".")}
    keep_secret(found)
    return found | ({"ca.crt path": str(folder / "ca.crt")} if "ca.crt" in found else {})
