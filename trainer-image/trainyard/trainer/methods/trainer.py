"""TRL's trainer with committed checkpoints, an exact continuation, and an ear for stop signals.

Inheriting is what the library asks for. What is overridden, and why:

    _get_train_sampler          the order of the data depends on seed and epoch alone
    get_batch_samples           counts the real tokens; a method may make its own batches
    compute_loss                the quicker of two equal ways, or the method's own loss
    training_step               leaves between two micro-batches when told to stop
    evaluate, prediction_step   evaluation does not move the random numbers of training, and can be left too
    _maybe_log_save_evaluate    the border between two steps: remembers the state that a checkpoint has to hold
    _save_checkpoint            everything goes through `checkpoint.save`
    create_optimizer            one that has to know which weight is what
    _load_optimizer_and_...     settings are those of the spec, also behind a checkpoint that was made under other ones
    _load_from_checkpoint       the weights came in when the model was loaded

A stop between two micro-batches throws the gradients collected so far away: weights, optimizer and counters are still
those of the last whole step, and the generators are taken from that moment too, so the continued run repeats the step with
the same batch and the same dropout.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from trl import SFTTrainer

from trainyard.api.run.training import EarlyStopping
from trainyard.trainer.data.store import IGNORED
from trainyard.trainer.frame.early_stop import Seen
from trainyard.trainer.frame.out_of_memory import DidNotFit, EvaluationBatch, told_by
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import available_host_memory
from trainyard.trainer.machine.team import ALONE, Team
from trainyard.trainer.methods import state
from trainyard.trainer.methods.batches import TOKEN_COUNT, EpochOrder
from trainyard.trainer.methods.callbacks import restore, states_of
from trainyard.trainer.methods.continuation import put_settings_back, settings_of
from trainyard.trainer.methods.loss import has_a_quick_way, sum_of_losses
from trainyard.trainer.methods.objective import Interrupted, Objective
from trainyard.trainer.methods.optimizer import MakeOptimizer
from trainyard.trainer.models.handover import save_weights
from trainyard.trainer.signals import STOP
from trainyard.trainer.volume.commit import Write
from trainyard.trainer.volume.saving import Saver, copied, size_of

COPY_SHARE = 0.8
"""Of the free host memory, that the copy of a checkpoint may take; a larger one is written while the training waits."""
LOG_ENTRIES_KEPT = 1000
"""Entries of the loss history in a checkpoint, which otherwise grows with every log line of a long run."""


class Stopped(Exception):
    """Raised through transformers' loop after the checkpoint has been committed."""


class Updating(TrainerCallback):  # type: ignore[misc]
    """Marks the time from the optimizer's step to the border behind it, in which the weights are of no step at all."""

    def __init__(self) -> None:
        self.now = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.now = True


def trained_weights_over_packed(model: Any) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """The adapter of a quantised base, as it is. TRL's constructor rounds it to BF16, in which small updates are lost, a
    continuation would not be exact, and FP16's loss scaling fails."""
    if not getattr(model, "is_loaded_in_4bit", False):
        return []
    return [(parameter, parameter.data) for parameter in model.parameters() if parameter.requires_grad]


class CommittingTrainer(SFTTrainer):  # type: ignore[misc]
    """See the module's text. `save(step, write)` commits a checkpoint and is called from a thread as well as from here;
    `every_minutes` bounds the time between two; with `keep_best` a new best evaluation is saved at once; `evaluation` says how
    many examples are measured at a time; `objective` is the method's, None for the next token; `make_optimizer` makes the optimizer where
    transformers does not; `early` is the rule by which evaluations end the training, with the metric."""

    control: Any
    optimizer: Any

    def __init__(
        self,
        *,
        save: Callable[[int, Write], None],
        evaluation: EvaluationBatch,
        every_minutes: float,
        keep_best: bool = False,
        team: Team = ALONE,
        objective: Objective | None = None,
        make_optimizer: MakeOptimizer | None = None,
        early: tuple[EarlyStopping, str] | None = None,
        own: Sequence[TrainerCallback] = (),
        **arguments: Any,
    ) -> None:
        adapter = trained_weights_over_packed(arguments["model"])
        super().__init__(**arguments)
        for parameter, values in adapter:
            parameter.data = values
        self._objective = objective
        self._make_optimizer = make_optimizer
        self._early = early
        self.saver = Saver(save)
        self._keep_best = keep_best
        self.team = team
        self._evaluation = evaluation
        self._updating = Updating()
        self.add_callback(self._updating)
        self._own = own
        for callback in own:
            self.add_callback(callback)
        self._every_seconds = every_minutes * 60
        self._last_saved = time.monotonic()
        self._started = time.monotonic()
        self.counters = state.Counters()
        self._boundary_loss: torch.Tensor | None = None
        self._boundary_generators: dict[str, Any] | None = None
        self._boundary_counters = state.Counters()
        self._all_generators: list[Any] = []
        self._new_tokens = 0
        """Of the step under way, in this process."""

    def train(self, resume_from_checkpoint: str | None = None, *, afresh: bool = False, **arguments: Any) -> Any:
        """Train to the end, or to a stop. `afresh`: what another run's evaluations have seen does not end this one.

        Raises:
            Stopped: a signal came in; the state of the last whole step is committed.
            DidNotFit: the device ran out of memory; the same.
        """
        if resume_from_checkpoint is not None:
            self.counters = state.read_counters(Path(resume_from_checkpoint))
            if afresh:
                self.counters = replace(self.counters, early=Seen(), ended=False, callbacks={})
            restore(self._own, self.counters.callbacks)
        self._started = self._last_saved = time.monotonic()
        try:
            outcome = super().train(resume_from_checkpoint=resume_from_checkpoint, **arguments)
            self.saver.wait()
            return outcome
        except RuntimeError as error:
            told = told_by(error)
        finally:
            self.saver.finish()
        self.model.zero_grad(set_to_none=True)
        if self.state.global_step > 0 and not self._updating.now and self.team.size == 1:
            self._save_now()
        raise DidNotFit(self.state.global_step, told)

    @property
    def seconds(self) -> float:
        """Time spent training, over all attempts, up to the last whole step."""
        return self._boundary_counters.seconds

    def continue_unlogged_loss(self) -> None:
        """Called once the loop has set its own sums to zero: the first line after a restart then shows the same average as
        it would have without one."""
        if self.counters.last_logged_step or self.counters.unlogged_loss:
            self._tr_loss += self.counters.unlogged_loss
            self._globalstep_last_logged = self.counters.last_logged_step
        for name, values in self.counters.unlogged_metrics.items():
            self._metrics["train"][name].extend(values)
        self._remember_boundary()

    def create_optimizer(self, model: Any = None) -> Any:
        if self.optimizer is None and self._make_optimizer is not None:
            self.optimizer = self._make_optimizer(self)
        return super().create_optimizer(model)

    # ---- data

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        data = self.train_dataset if train_dataset is None else train_dataset
        return EpochOrder(len(data), self.args.seed, batch=self._train_batch_size, team=self.team)

    def get_train_dataloader(self) -> Any:
        if self.team.size == 1:
            return super().get_train_dataloader()
        # Our sampler knows what is this process's; accelerate would share it out once more.
        loader = DataLoader(
            self.train_dataset,
            batch_size=self._train_batch_size,
            sampler=self._get_train_sampler(),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return prepare_data_loader(loader, self.args.device, num_processes=1, process_index=0, put_on_device=True)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self._objective is not None:
            try:
                batches, items = self._objective.batches(self.model, batches, step=self.state.global_step)
            except Interrupted:
                self._save_and_stop()
        self._new_tokens += sum(int(batch.pop(TOKEN_COUNT)) for batch in batches)
        return batches, items

    # ---- steps

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if self._objective is not None:
            loss, metrics = self._objective.loss(model, inputs, num_items_in_batch)
            for name, value in zip(metrics, torch.stack(list(metrics.values())).tolist(), strict=True):
                self._metrics["train"][name].append(value)
            return loss
        plain = self.args.loss_type == "nll" and self.label_smoother is None and not self.aux_loss_enabled
        if return_outputs or not plain or not has_a_quick_way(self.model, inputs):
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"][:, 1:] != IGNORED).sum()
        elif self.args.average_tokens_across_devices:
            # The count is that of all processes, and their gradients are averaged.
            num_items_in_batch = num_items_in_batch / self.accelerator.num_processes
        # A batch without a token that counts is zero, not zero by zero.
        return sum_of_losses(model, inputs) / torch.as_tensor(num_items_in_batch).clamp(min=1)

    def training_step(self, *arguments: Any, **named: Any) -> Any:
        # Several processes leave together, at the border of a step.
        if STOP.requested and self.team.size == 1:
            self._save_and_stop()
        return super().training_step(*arguments, **named)

    def _maybe_log_save_evaluate(self, *arguments: Any, **named: Any) -> None:
        is_due = time.monotonic() - self._last_saved >= self._every_seconds
        stop, due, tokens = self.team.sum(STOP.requested, is_due, self._new_tokens)
        self.counters.tokens += int(tokens)
        self._new_tokens = 0
        if stop:
            STOP.request()
        if due:
            self.control.should_save = True
        self._notice_asked_end()
        super()._maybe_log_save_evaluate(*arguments, **named)
        self._remember_boundary()
        self.saver.check()
        if stop and self.state.global_step < self.state.max_steps:
            self._save_and_stop()

    # ---- evaluation

    def evaluate(self, *arguments: Any, **named: Any) -> Any:
        if STOP.requested and self.team.size == 1:
            self._remember_boundary()
            self._save_and_stop()
        generators = state.read_generators()
        evaluate = super().evaluate
        try:
            try:
                metrics = self.evaluate_in_batches_that_fit(
                    self._evaluate_objective if self._objective else lambda: evaluate(*arguments, **named)
                )
                self._notice_best(metrics)
                self._notice_end(metrics)
                self._notice_asked_end()
                return metrics
            finally:
                state.restore_generators(generators)
        except Interrupted:
            self._remember_boundary()
            self._save_and_stop()

    def _evaluate_objective(self) -> dict[str, float]:
        assert self._objective is not None
        self.model.eval()
        values = self._objective.evaluate(self.model, batch_size=self.args.per_device_eval_batch_size)
        metrics = {f"eval_{name}": value for name, value in values.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.model.train()
        return metrics

    def evaluate_in_batches_that_fit(self, run: Callable[[], Any]) -> Any:
        """Call `run`, and again with half the batch as long as the device runs out of memory."""

        def with_batches_of(size: int) -> Any:
            if size != self.args.per_device_eval_batch_size:
                self._metrics["eval"].clear()
                self.args.per_device_eval_batch_size = size
            return run()

        return self._evaluation.fitting(with_batches_of)

    def _notice_best(self, metrics: dict[str, float]) -> None:
        loss, best = metrics.get("eval_loss"), self.counters.best_eval_loss
        if self._keep_best and loss is not None and (best is None or loss < best):
            self.counters.best_eval_loss, self.counters.best_step = loss, self.state.global_step
            self.control.should_save = True

    def _notice_end(self, metrics: dict[str, float]) -> None:
        """Whether evaluations get no better any more. The training then ends as at its last step."""
        if self._early is None:
            return
        rule, metric = self._early
        seen = self.counters.early
        if seen.notice(metrics.get(f"eval_{metric}", math.nan), self.state.global_step, rule, metric):
            say(seen.told(metric, self.state.global_step))
            self.control.should_save = self.control.should_training_stop = True

    def log(self, *arguments: Any, **named: Any) -> None:
        super().log(*arguments, **named)
        self._notice_asked_end()

    def _notice_asked_end(self) -> None:
        """Whether a callback of the user's own has ended the training. It then ends as at its last step, also after a restart."""
        asked = self.control.should_training_stop and not self.counters.early.over
        if self._own and asked and self.state.global_step < self.state.max_steps:
            self.counters.ended = self.control.should_save = True

    def prediction_step(self, model: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
        inputs.pop(TOKEN_COUNT, None)
        return super().prediction_step(model, inputs, *arguments, **named)

    # ---- checkpoints

    def _remember_boundary(self) -> None:
        self._updating.now = False
        self._boundary_generators = state.read_generators()
        self._boundary_loss = self._tr_loss.clone()
        self._boundary_counters = replace(
            self.counters,
            early=replace(self.counters.early),
            callbacks=states_of(self._own),
            seconds=self.counters.seconds + time.monotonic() - self._started,
            last_logged_step=self._globalstep_last_logged,
            unlogged_metrics={name: list(values) for name, values in self._metrics["train"].items()},
        )

    def _save_and_stop(self) -> NoReturn:
        if self.state.global_step > 0:
            self._save_now()
        raise Stopped

    def _save_now(self) -> None:
        self._bring_together()
        if self.team.leads:
            self.saver.save(self.state.global_step, self._prepare_to_write(copy=False))
        self.team.wait()

    def _bring_together(self) -> None:
        """What of the state differs between the processes, to the first one, which saves for all."""
        self._all_generators = self.team.gather(self._boundary_generators)
        loss = 0.0 if self._boundary_loss is None else self._boundary_loss.item()
        self._boundary_counters.unlogged_loss = self.team.sum(loss)[0] / self.team.size

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self._remember_boundary()
        self.store_flos()
        self._bring_together()
        if self.team.leads:
            self._save_beside()
        self._last_saved = time.monotonic()

    def _save_beside(self) -> None:
        """Begin to save, and go on training as soon as the state is copied."""
        self.saver.wait()
        started = time.monotonic()
        fits = size_of((self._weights(), self.optimizer.state_dict())) < COPY_SHARE * available_host_memory()
        write = self._prepare_to_write(copy=fits)
        self.saver.waited += time.monotonic() - started
        if fits:
            self.saver.begin(self.state.global_step, write)
        else:
            self.saver.save(self.state.global_step, write)

    def _weights(self) -> dict[str, torch.Tensor]:
        """What is trained: all weights, or those of the adapter."""
        model = self.accelerator.unwrap_model(self.model)
        weights: dict[str, torch.Tensor] = model.state_dict()
        if not hasattr(model, "peft_config"):
            return weights
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        return {name: value for name, value in weights.items() if name in trained}

    def _prepare_to_write(self, *, copy: bool) -> Write:
        """Everything that the continuation needs, as of the last whole step: what is small at once, in a folder of its own;
        weights and optimizer by the function that is returned, from a copy in host memory or as they are."""
        staged = tempfile.TemporaryDirectory(prefix="checkpoint-")
        self._write_small(Path(staged.name))
        model = self.accelerator.unwrap_model(self.model)
        weights, optimizer = self._weights(), self.optimizer.state_dict()
        if copy:
            weights, optimizer = copied((weights, optimizer))
        best = {"step": self._boundary_counters.best_step, "evalLoss": self._boundary_counters.best_eval_loss}

        def write(folder: Path) -> dict[str, Any]:
            shutil.copytree(staged.name, folder, dirs_exist_ok=True)
            staged.cleanup()
            save_weights(model, folder, state_dict=weights)
            torch.save(optimizer, folder / "optimizer.pt")
            return {"best": best} if best["step"] is not None else {}

        return write

    def _write_small(self, folder: Path) -> None:
        torch.save(self.lr_scheduler.state_dict(), folder / "scheduler.pt")
        self._save_scaler(str(folder))
        if self._objective is not None:
            self._objective.write(folder)
        torch.save(self._boundary_generators, folder / state.RNG_FILE)
        for rank, generators in enumerate(self._all_generators[1:], start=1):
            torch.save(generators, folder / state.rng_file(rank))
        state.write_counters(folder, self._boundary_counters)
        self.state.stateful_callbacks.clear()
        self.state.log_history = self.state.log_history[-LOG_ENTRIES_KEPT:]
        self.state.save_to_json(str(folder / "trainer_state.json"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.team.size == 1 or checkpoint is None:
            super()._load_rng_state(checkpoint)
            return
        file = Path(checkpoint) / state.rng_file(self.team.rank)
        if file.exists():  # not where there were fewer processes before; then it draws numbers of its own
            state.restore_generators(state.load_generators(file))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        settings = settings_of(self.optimizer)
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        put_settings_back(self.optimizer, self.lr_scheduler, settings)
        # When to log, evaluate and save, too, came with the checkpoint's counters.
        self.state.compute_steps(self.args, self.state.max_steps)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Nothing: `models/load.py` has loaded the weights from the checkpoint, in the names and types of the model."""
