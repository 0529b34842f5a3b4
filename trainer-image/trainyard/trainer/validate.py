"""The validate step (mode DryRun): everything that can be known before an accelerator is asked for.

Reads the spec as the train step will, fetches every source, checks every record, tokenises all of it, and says what it
found: faults with file and line, lengths and what would be cut, duplicates, records that are in training and evaluation at
once, the size of the model, memory, and how many steps it makes. The same as JSON lies in `validation/report.json`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainyard.api.phases import phases_to_run
from trainyard.api.progress import DatasetRecord
from trainyard.trainer.commit import commit_folder
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.build import SPLITS, Built, build_records
from trainyard.trainer.data.prepare import joint_digest, make_tokenizer
from trainyard.trainer.data.prepare_phases import all_records
from trainyard.trainer.data.tokenize import Encoder, Tally
from trainyard.trainer.errors import invalid_config, invalid_data
from trainyard.trainer.imports import quick_imports
from trainyard.trainer.known_names import check_names
from trainyard.trainer.ledger import LEDGER
from trainyard.trainer.log import say, warn
from trainyard.trainer.methods.arguments import check_extra_arguments, check_optimizer, learning_rate, total_steps
from trainyard.trainer.models.source import local_folder
from trainyard.trainer.phases import in_phase, settle_start
from trainyard.trainer.progress import Reporter

SAMPLE_LENGTHS = (0.5, 0.9, 0.99, 1.0)
BAR = 40
"""Characters of the longest bar in the histogram."""


def validate(context: RunContext, reporter: Reporter) -> None:
    """Check and report.

    Raises:
        UserError: the first kind of fault found; the log has all of them.
    """
    started = time.monotonic()
    reporter.report(phase="validate", percentage=0.0)
    context.work_dir.mkdir(parents=True, exist_ok=True)
    trainings = phases_as_trainings(context)
    for training in trainings:
        check_names(training)
    with quick_imports():
        from trl import SFTConfig

    for training in trainings:
        check_extra_arguments(training.training.extra_args, SFTConfig)
        check_optimizer(training.training.optim)
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

    report = reports[0] if not context.run.spec.phases else {"run": context.run.metadata.name, "phases": reports}

    def write(to: Path) -> None:
        (to / "report.json").write_text(json.dumps(report, indent=1))

    commit_folder(context.work_dir / "validation", write)
    splits = [(name, split) for one in reports for name, split in one["data"]["splits"].items() if split["records"]]
    LEDGER.note(
        dataset=DatasetRecord(
            digest=joint_digest([one["data"]["digest"] for one in reports]),
            records=sum(s["records"] for _, s in splits),
            tokens=sum(s["tokens"] for _, s in splits),
            splits={name: sum(s["records"] for n, s in splits if n == name) for name, _ in splits},
        ),
        effective={**reports[0]["model"], **reports[0]["training"]},
        percentage=100.0,
    )
    reporter.report(percentage=100.0, milestone=True)
    say(f"the run is valid ({time.monotonic() - started:.1f} s)")


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
    report: dict[str, Any] = {"run": context.run.metadata.name} | ({"phase": context.phase} if context.phase else {})
    report["data"] = describe_data(context, built, tokenizer)
    report["model"] = describe_model(context, tokenizer)
    report["training"] = describe_training(context, report["data"])
    for line in table(context, report):
        say(line)
    return report


def describe_data(context: RunContext, built: Built, tokenizer: Any) -> dict[str, Any]:
    """Tokenise everything and count."""
    encoder = Encoder(tokenizer, max_length=context.training.max_length)
    splits: dict[str, Any] = {}
    lengths: Counter[int] = Counter()
    for split in SPLITS:
        tally = Tally()
        for _ in encoder.encode(built.records(split), tally):
            pass
        lengths += tally.lengths
        splits[split] = {
            "records": tally.records,
            "examples": tally.examples,
            "tokens": tally.tokens,
            "truncated": tally.truncated,
            "dropped": tally.dropped,
        }
    if not splits["train"]["examples"]:
        raise invalid_data(
            f"nothing is left to train on: none of {splits['train']['records']} records fits into "
            f"{context.training.max_length} tokens",
            hint="raise spec.training.maxLength",
        )
    return {
        "digest": built.digest,
        "splits": splits,
        "duplicates": built.manifest["statistics"]["repeated"],
        "leaked": built.manifest["statistics"]["leaked"],
        "nearlyLeaked": built.manifest["statistics"].get("nearlyLeaked", 0),
        "lengths": {f"p{int(q * 100)}": _quantile(lengths, q) for q in SAMPLE_LENGTHS},
        "histogram": _histogram(lengths),
    }


def describe_model(context: RunContext, tokenizer: Any) -> dict[str, Any]:
    """Size and memory, from the configuration alone."""
    from transformers import AutoConfig

    from trainyard.trainer.estimate import estimate
    from trainyard.trainer.models.scratch import build_config

    spec = context.model
    vocab_size = max(tokenizer.get_vocab().values()) + 1
    if spec.scratch is not None:
        config: Any = build_config(
            spec.scratch, vocab_size=vocab_size, max_length=context.positions, tokenizer=tokenizer
        )
    else:
        assert spec.storage_uri is not None
        folder = local_folder(spec.storage_uri, context=context, secret_ref=spec.secret_ref, weights=False)
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise invalid_config(
                f"{spec.storage_uri} has no configuration that can be read: {str(error).splitlines()[0]}",
                hint="the folder needs a config.json of a known architecture",
            ) from error
    width = 2 if context.training.precision in ("BF16", "FP16") else 4
    try:
        size = estimate(
            config,
            context.training,
            lora=spec.adapter.lora if spec.adapter else None,
            bytes_per_value=width,
        )
    except (ValueError, TypeError, KeyError, RuntimeError, ZeroDivisionError) as error:
        raise invalid_config(
            f"the configuration does not make a model: {str(error).splitlines()[0]}",
            hint="check the sizes against each other (heads have to divide hidden_size)",
        ) from error
    return {
        "architecture": config.model_type,
        "parameters": size.parameters,
        "trainableParameters": size.trainable,
        "vocabSize": vocab_size,
        "estimatedMemoryBytes": size.total,
        "weightBytes": size.weights,
        "optimizerBytes": size.gradients + size.optimizer,
        "activationBytes": size.activations,
    }


def describe_training(context: RunContext, data: dict[str, Any]) -> dict[str, Any]:
    """Steps and what one step is. Packed sequences are estimated as full ones."""
    training, train = context.training, data["splits"]["train"]
    sequences = -(-train["tokens"] // training.max_length) if training.packing else train["examples"]
    steps = total_steps(context, sequences)
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps * context.run.spec.world_size
    return {
        "steps": steps,
        "sequences": sequences,
        "epochs": round(steps * batch / max(sequences, 1), 2),
        "tokensPerStep": min(batch * training.max_length, train["tokens"]),
        "learningRate": learning_rate(context),
    }


def table(context: RunContext, report: dict[str, Any]) -> list[str]:
    """The report for people."""
    data, model, training = report["data"], report["model"], report["training"]
    rows = [f"{'split':<8}{'records':>12}{'tokens':>14}{'cut':>10}{'dropped':>10}"]
    for name, split in data["splits"].items():
        if split["records"]:
            rows.append(
                f"{name:<8}{split['records']:>12,}{split['tokens']:>14,}{_share(split['truncated'], split['records']):>10}"
                f"{_share(split['dropped'], split['records']):>10}"
            )
    rows.append("tokens per record: " + ", ".join(f"{name} {value:,}" for name, value in data["lengths"].items()))
    largest = max((count for _, count in data["histogram"]), default=1)
    for upper, count in data["histogram"]:
        rows.append(f"  <= {upper:>8,}  {'#' * max(1, round(BAR * count / largest)):<{BAR}} {count:,}")
    if data["duplicates"]:
        rows.append(f"duplicates: {data['duplicates']:,} records occur more than once")
    if data["leaked"]:
        warn(
            f"{data['leaked']:,} records stand in a training data set and in one that is held out: the metrics will flatter"
        )
    rows.append(
        f"model: {model['architecture']}, {model['parameters']:,} parameters, {model['trainableParameters']:,} trained; "
        f"about {model['estimatedMemoryBytes'] / 1e9:.2f} GB ({model['weightBytes'] / 1e9:.2f} weights, "
        f"{model['optimizerBytes'] / 1e9:.2f} gradients and optimizer, {model['activationBytes'] / 1e9:.2f} activations)"
    )
    rows.append(
        f"training: {context.training.method}, {training['steps']:,} steps of up to {training['tokensPerStep']:,} tokens, "
        f"{training['epochs']} epochs, learning rate {training['learningRate']:g}"
    )
    return rows


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


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part else "-"
