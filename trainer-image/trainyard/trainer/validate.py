"""The validate step (mode DryRun): everything that can be known before an accelerator is asked for.

Reads the spec as the train step will, fetches every source, checks every record, tokenises all of it, and says what it
found: faults with file and line, lengths and what would be cut, duplicates, records that are in training and evaluation at
once, the size of the model, memory, and how many steps it makes. The same as JSON lies in `validation/report.json`.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from trainyard.api.progress import DatasetRecord
from trainyard.trainer.commit import commit_folder
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.prepare import SPLITS, Pool, collect, texts_of
from trainyard.trainer.data.tokenize import Encoder, Tally
from trainyard.trainer.data.tokenizer import copy_tokenizer, train_tokenizer
from trainyard.trainer.errors import invalid_config, invalid_data
from trainyard.trainer.imports import quick_imports
from trainyard.trainer.known_names import check_names
from trainyard.trainer.ledger import LEDGER
from trainyard.trainer.log import say, warn
from trainyard.trainer.methods.arguments import check_extra_arguments, check_optimizer, learning_rate, total_steps
from trainyard.trainer.models.source import local_folder
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
    check_names(context)
    with quick_imports():
        from trl import SFTConfig

    check_extra_arguments(context.training.extra_args, SFTConfig)
    check_optimizer(context.training.optim)
    reporter.report(percentage=10.0)

    report: dict[str, Any] = {"run": context.run.metadata.name}
    with tempfile.TemporaryDirectory(prefix=".tmp-validate-", dir=context.work_dir) as place:
        folder = Path(place)
        pool = collect(context, folder)
        reporter.report(percentage=40.0)
        tokenizer = _tokenizer(context, pool, folder)
        report["data"] = describe_data(context, pool, tokenizer)
    reporter.report(percentage=80.0)
    report["model"] = describe_model(context, tokenizer)
    training = describe_training(context, report["data"])
    report["training"] = training

    for line in table(context, report):
        say(line)

    def write(to: Path) -> None:
        (to / "report.json").write_text(json.dumps(report, indent=1))

    commit_folder(context.work_dir / "validation", write)
    LEDGER.note(
        dataset=DatasetRecord(
            digest=report["data"]["digest"],
            records=sum(s["records"] for s in report["data"]["splits"].values()),
            tokens=sum(s["tokens"] for s in report["data"]["splits"].values()),
            splits={name: s["records"] for name, s in report["data"]["splits"].items() if s["records"]},
        ),
        effective={**report["model"], **training},
        percentage=100.0,
    )
    reporter.report(percentage=100.0, milestone=True)
    say(f"the run is valid ({time.monotonic() - started:.1f} s)")


def describe_data(context: RunContext, pool: Pool, tokenizer: Any) -> dict[str, Any]:
    """Tokenise everything and count."""
    encoder = Encoder(tokenizer, max_length=context.training.max_length)
    digest = hashlib.sha256()
    splits: dict[str, Any] = {}
    lengths: Counter[int] = Counter()
    for split in SPLITS:
        tally = Tally()
        for _ in encoder.encode(pool.records(split, digest), tally):
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
        "digest": digest.hexdigest(),
        "splits": splits,
        "duplicates": pool.total - len(_distinct(pool)),
        "leaked": _leaked(pool),
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
            spec.scratch, vocab_size=vocab_size, max_length=context.training.max_length, tokenizer=tokenizer
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
    batch = training.per_device_train_batch_size * training.gradient_accumulation_steps
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


def _tokenizer(context: RunContext, pool: Pool, folder: Path) -> Any:
    model = context.model
    if model.scratch is not None and model.scratch.tokenizer.train_vocab_size is not None:
        texts = (text for record, _ in pool.records("train") for text in texts_of(record))
        return train_tokenizer(texts, model.scratch.tokenizer.train_vocab_size, folder / "tokenizer")
    uri = model.scratch.tokenizer.storage_uri if model.scratch else model.storage_uri
    assert uri is not None
    source = local_folder(uri, context=context, secret_ref=model.secret_ref, weights=False)
    return copy_tokenizer(source, folder / "tokenizer", uri=uri)


def _distinct(pool: Pool) -> set[int]:
    return {value for _, _, hashes, _ in pool.parts for value in hashes}


def _leaked(pool: Pool) -> int:
    """Records of held-out data sets that stand in a training one too. Within one data set it cannot happen."""
    held_out: set[int] = set()
    trained: set[int] = set()
    for _, _, hashes, assignment in pool.parts:
        for value in hashes:
            place = assignment.split_of(value)
            if place == "train":
                trained.add(value)
            elif place is not None:
                held_out.add(value)
    return len(held_out & trained)


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
