"""The dry run's report for people; the same numbers stand in report.json."""

from __future__ import annotations

from typing import Any

from trainyard.trainer.context import RunContext
from trainyard.trainer.dryrun.capacity import capacity_lines
from trainyard.trainer.log import warn

BAR = 40
"""Characters of the longest bar in the histogram."""


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
    rows += [f"{name}: {remark}" for name, split in data["splits"].items() for remark in split["remarks"]]
    rows.append("tokens per record: " + ", ".join(f"{name} {value:,}" for name, value in data["lengths"].items()))
    largest = max((count for _, count in data["histogram"]), default=1)
    for upper, count in data["histogram"]:
        rows.append(f"  <= {upper:>8,}  {'#' * max(1, round(BAR * count / largest)):<{BAR}} {count:,}")
    if data["duplicates"]:
        rows.append(f"duplicates: {data['duplicates']:,} records occur more than once")
    if data["nearlyLeaked"]:
        warn(f"{data['nearlyLeaked']:,} training records are nearly equal to held-out ones: set deduplicate: Near")
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
    rows += capacity_lines(report["capacity"], report["outputs"])
    for preview in data["previews"]:
        rows.append(
            f"{preview['dataset']}: {preview['counted']} of {preview['tokens']} tokens count for the loss, in brackets:"
        )
        rows += [f"  | {line}" for line in preview["text"].splitlines()]
    return rows


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if part else "-"
