"""The validate step (mode DryRun): everything that can be known before an accelerator is asked for.

Reads the spec as the train step will, fetches every source, checks every record, tokenises all of it, and says what it
found: faults with file and line, lengths and what would be cut, duplicates, records that are in training and evaluation at
once, how a record looks to the model, the size of the model, whether it fits, time, cost, and room on the volume. The same
as JSON lies in `validation/report.json`, also where the run is not valid.

It is meant to be quick: sources are asked for a sign of life first, and torch is imported only where a base is loaded
without its numbers, or the architecture or `extraArgs` cannot be judged without it.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainyard.api.run.methods import METHODS
from trainyard.api.run.training import Training
from trainyard.api.run.trainingrun import phases_to_run
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.build import build_records
from trainyard.trainer.data.collect.run import forget
from trainyard.trainer.data.prepare import is_packed, joint_digest, make_tokenizer
from trainyard.trainer.data.prepare_phases import all_records
from trainyard.trainer.data.probe import Reached, probe_all
from trainyard.trainer.data.records import SPLITS, Built
from trainyard.trainer.data.teacher import check_same_tokenizer
from trainyard.trainer.data.tokenize import Encoder, Tally
from trainyard.trainer.data.usable import check_usable, facts_of, remarks
from trainyard.trainer.dryrun.capacity import describe_capacity, describe_outputs
from trainyard.trainer.dryrun.preview import previews
from trainyard.trainer.dryrun.report import table
from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.log import say, warn
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.methods.arguments import (
    check_method_arguments,
    check_optimizer,
    learning_rate,
    steps_per_epoch,
    total_steps,
)
from trainyard.trainer.methods.grpo_config import GRPOConfig, RLOOConfig
from trainyard.trainer.methods.ppo_config import PPOConfig
from trainyard.trainer.models.base import no_configuration, read_configuration
from trainyard.trainer.models.estimate import Estimate, estimate, estimate_quickly
from trainyard.trainer.models.fit import check_base_model
from trainyard.trainer.models.quantize import is_quantized
from trainyard.trainer.phases import in_phase, settle_start
from trainyard.trainer.reporter import PreparedDataset, Reporter
from trainyard.trainer.volume.bases import base_folder
from trainyard.trainer.volume.commit import commit_folder

SAMPLE_LENGTHS = (0.5, 0.9, 0.99, 1.0)


def validate(context: RunContext, reporter: Reporter) -> None:
    """Check and report.

    Raises:
        UserError: the first kind of fault found; the log has all of them.
    """
    started = time.monotonic()
    reporter.report(phase="validate", percentage=0.0)
    context.work_dir.mkdir(parents=True, exist_ok=True)
    sources: list[Reached] = []
    try:
        sources += _probe(context)
        report = _validate(context, reporter, sources)
    except UserError as error:
        fault = {"reason": str(error.reason), "message": error.message, "hint": error.hint}
        told = [one.to_json() for one in sources]
        _write(context, {"run": context.run.metadata.name, "valid": False, "fault": fault, "sources": told})
        raise
    forget(context)
    _write(context, report)
    reporter.report(percentage=100.0, milestone=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    say(f"the run is valid ({time.monotonic() - started:.1f} s, {peak:.0f} MB of memory)")


def _write(context: RunContext, report: dict[str, Any]) -> None:
    def write(to: Path) -> None:
        (to / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False))

    commit_folder(context.work_dir / "validation", write)


def _probe(context: RunContext) -> list[Reached]:
    """A line for each source. One that does not answer is found out again, with its own message, when it is read."""
    found = probe_all(context)
    for one in found:
        (say if one.fine else warn)(f"source {one}")
    return found


def _validate(context: RunContext, reporter: Reporter, sources: list[Reached]) -> dict[str, Any]:
    trainings = phases_as_trainings(context)
    for training in trainings:
        check_base_model(training)
        check_optimizer(training.training.optim)
    if any(training.training.extra_args for training in trainings):
        with quick_imports():
            for training in trainings:
                check_method_arguments(training.training)
    reporter.report(percentage=10.0)

    reports = []
    with tempfile.TemporaryDirectory(prefix=".tmp-validate-", dir=context.work_dir) as place:
        tokenizer = None
        if context.run.spec.phases:
            first = in_phase(context, trainings[0].phase)
            tokenizer = make_tokenizer(first, Path(place) / "shared", lambda: all_records(context, Path(place) / "all"))
        for number, training in enumerate(trainings):
            if training.phase:
                say(f"phase {training.phase}:")
            folder = Path(place) / str(number)
            folder.mkdir()
            reports.append(_examine(training, folder, tokenizer))
            reporter.report(percentage=10.0 + 80.0 * (number + 1) / len(trainings))

    splits = [(name, split) for one in reports for name, split in one["data"]["splits"].items() if split["records"]]
    reporter.report(
        dataset=PreparedDataset(
            digest=joint_digest([one["data"]["digest"] for one in reports]),
            records=sum(s["records"] for _, s in splits),
            tokens=sum(s["tokens"] for _, s in splits),
            splits={name: sum(s["records"] for n, s in splits if n == name) for name, _ in splits},
        ),
        effective={**reports[0]["model"], **reports[0]["training"], **_flat(reports[0]["capacity"])},
        percentage=100.0,
    )
    report = reports[0] if not context.run.spec.phases else {"run": context.run.metadata.name, "phases": reports}
    return {**report, "valid": True, "sources": [one.to_json() for one in sources]}


def _flat(capacity: dict[str, Any]) -> dict[str, Any]:
    """What of the estimate goes into the status."""
    return {
        name: capacity[key]
        for key, name in (("device", "device"), ("seconds", "estimatedSeconds"), ("cost", "estimatedCost"))
        if key in capacity
    }


def phases_as_trainings(context: RunContext) -> list[RunContext]:
    """The phases, or the run itself. Their model is that of the run: what a phase will hand on does not exist yet, and
    differs in its values alone."""
    if context.run.spec.phases:
        settle_start(context)
    settled = [in_phase(context, name) for name in phases_to_run(context.run.spec)]
    same_model = [
        replace(
            p, run=p.run.model_copy(update={"spec": p.run.spec.model_copy(update={"model": context.run.spec.model})})
        )
        for p in settled
    ]
    return same_model or [context]


def _examine(context: RunContext, folder: Path, tokenizer: Any) -> dict[str, Any]:
    """One training: its data, its model and its length, told and returned. Without a tokenizer, its own is made."""
    (folder / "staging").mkdir()
    built = Built(folder, build_records(context, folder, folder / "staging", inspect=True))
    tokenizer = tokenizer or make_tokenizer(context, folder / "tokenizer", lambda: built)
    check_same_tokenizer(context, tokenizer, folder / "teacher")
    report: dict[str, Any] = {"run": context.run.metadata.name} | ({"phase": context.phase} if context.phase else {})
    report["data"] = describe_data(context, built, tokenizer)
    report["model"] = describe_model(context, tokenizer)
    report["training"] = describe_training(context, report["data"])
    tokens = report["data"]["splits"]["train"]["tokens"]
    spec = context.run.spec
    report["capacity"] = describe_capacity(spec, report["model"], report["training"], tokens)
    if is_quantized(context) and report["capacity"]["device"] == "CPU":
        warn("spec.model.adapter.quantization NF4 needs a GPU, and spec.resources asks for none")
    report["outputs"] = describe_outputs(context.run_dir, spec, report["model"], report["training"]["steps"])
    for line in table(context, report):
        say(line)
    return report


def describe_data(context: RunContext, built: Built, tokenizer: Any) -> dict[str, Any]:
    """Tokenise everything and count."""
    encoder = Encoder(tokenizer, max_length=context.training.max_length)
    splits: dict[str, Any] = {}
    lengths: Counter[int] = Counter()
    tallies = {split: Tally() for split in SPLITS}
    for split, tally in tallies.items():
        for _ in encoder.encode(built.records(split), tally):
            pass
        lengths += tally.lengths
        splits[split] = {**facts_of(tally), "remarks": remarks(tally, context.training.max_length)}
    check_usable(context, built, tallies)
    return {
        "digest": built.digest,
        "splits": splits,
        "duplicates": built.manifest["statistics"]["repeated"],
        "leaked": built.manifest["statistics"]["leaked"],
        "nearlyLeaked": built.manifest["statistics"].get("nearlyLeaked", 0),
        "lengths": {f"p{int(q * 100)}": _quantile(lengths, q) for q in SAMPLE_LENGTHS},
        "histogram": _histogram(lengths),
        "previews": previews(built, encoder, tokenizer),
    }


def describe_model(context: RunContext, tokenizer: Any) -> dict[str, Any]:
    """Size and memory, from the configuration alone."""
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    architecture, size = _size(context, tokenizer, vocab_size)
    return {
        "architecture": architecture,
        "parameters": size.parameters,
        "trainableParameters": size.trainable,
        "vocabSize": vocab_size,
        "estimatedMemoryBytes": size.total,
        "weightBytes": size.weights,
        "optimizerBytes": size.gradients + size.optimizer,
        "activationBytes": size.activations,
    }


def _size(context: RunContext, tokenizer: Any, vocab_size: int) -> tuple[str, Estimate]:
    """Without torch where the architecture is a common one."""
    spec, training = context.model, context.training
    lora = spec.adapter.lora if spec.adapter else None
    quantized = is_quantized(context)
    width = 2 if training.precision in ("BF16", "FP16") or (quantized and training.precision == "Auto") else 4
    folder = None
    if spec.scratch is not None:
        architecture, values = spec.scratch.architecture, {**spec.scratch.config}
        values.setdefault("vocab_size", vocab_size)
        positions = values.setdefault("max_position_embeddings", context.positions)
        simple = isinstance(positions, int) and positions >= context.positions and values["vocab_size"] >= vocab_size
    else:
        assert spec.storage_uri is not None
        folder = base_folder(context, weights=False)
        values = read_configuration(folder, spec.storage_uri)
        architecture, simple = str(values.get("model_type")), True
    if simple and (
        size := estimate_quickly(architecture, values, training, lora=lora, bytes_per_value=width, quantized=quantized)
    ):
        return architecture, size

    # The classes themselves know more architectures, and what is wrong with a value.
    from transformers import AutoConfig

    from trainyard.trainer.models.scratch import build_config

    if spec.scratch is not None:
        config: Any = build_config(
            spec.scratch, vocab_size=vocab_size, max_length=context.positions, tokenizer=tokenizer
        )
    else:
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise no_configuration(str(spec.storage_uri), str(error)) from error
    try:
        return config.model_type, estimate(config, training, lora=lora, bytes_per_value=width, quantized=quantized)
    except (ValueError, TypeError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise invalid_config(
            f"the configuration does not make a model: {first_line(error)}",
            hint="check the sizes against each other (heads have to divide hidden_size)",
        ) from error


def describe_training(context: RunContext, data: dict[str, Any]) -> dict[str, Any]:
    """Steps and what one step is. Packed sequences are estimated as full ones."""
    training, train = context.training, data["splits"]["train"]
    sequences = -(-train["tokens"] // training.max_length) if is_packed(training) else train["examples"]
    examples = METHODS[training.method].learns.examples
    if examples == "pairs":
        sequences //= 2
    if examples == "prompts":
        sequences *= passes_over_prompts(training)
    steps = total_steps(context, sequences)
    if training.warmup_steps > steps:
        warn(
            f"spec.training.warmupSteps {training.warmup_steps:g} is more than the {steps} steps of the training: its learning "
            "rate is never reached"
        )
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * context.run.spec.world_size
    per_epoch = steps_per_epoch(training, sequences, processes=context.run.spec.world_size)
    return {
        "steps": steps,
        "sequences": sequences,
        "epochs": round(steps / per_epoch, 2),
        "tokensPerStep": min(batch * training.max_length, train["tokens"]),
        "learningRate": learning_rate(context),
    }


def passes_over_prompts(training: Training) -> int:
    """How often a prompt is seen in an epoch, without importing what generates."""
    extra = training.extra_args
    if training.method == "PPO":
        return int(extra.get("num_ppo_epochs", PPOConfig.num_ppo_epochs))
    kind = RLOOConfig if training.method == "RLOO" else GRPOConfig
    return int(extra.get("num_generations", kind.num_generations)) * int(
        extra.get("num_iterations", kind.num_iterations)
    )


def _quantile(lengths: Counter[int], share: float) -> int:
    wanted = share * lengths.total()
    seen = 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= wanted:
            return length
    return 0


def _histogram(lengths: Counter[int]) -> list[tuple[int, int]]:
    """Counts up to powers of two."""
    bins: Counter[int] = Counter()
    for length, count in lengths.items():
        bins[1 << max(0, length - 1).bit_length()] += count
    return sorted(bins.items())
