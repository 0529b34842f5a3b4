"""What a process of a comparison does: train for good, and report after each step."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import Turns


def train_with_trainyard(folder: Path, name: str, spec: dict[str, Any], turns: Turns) -> None:
    """The real train step, with a look at its counters after each step. `spec` needs neither steps nor checkpoints."""
    places = {
        "RUN_FILE": f"{name}.json",
        "WORK_DIR": f"volume/{name}",
        "CACHE_DIR": f"cache-{name}",
        "VOLUMES_DIR": "volumes",
        "SECRETS_DIR": "secrets",
    }
    os.environ |= {f"TRAINYARD_{variable}": str(folder / place) for variable, place in places.items()}
    os.environ["TRAINYARD_TERMINATION_LOG"] = ""
    run = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "bench"},
        "spec": {
            **spec,
            "training": {**spec["training"], "maxSteps": 100_000},
            "checkpoints": {"everySteps": 100_000_000, "everyMinutes": 10_000},
        },
    }
    (folder / f"{name}.json").write_text(json.dumps(run))
    from trainyard.trainer import __main__ as trainer

    if trainer.main(["prepare"]):
        raise SystemExit("prepare failed")
    from trainyard.trainer.methods.reporting import Reporting

    original = Reporting.on_step_end

    def on_step_end(self: Any, *arguments: Any, **named: Any) -> None:
        original(self, *arguments, **named)
        turns.step_ended(self._trainer.counters.tokens)

    Reporting.on_step_end = on_step_end  # type: ignore[method-assign]
    trainer.main(["train"])


def train_with_trl(folder: Path, turns: Turns, *, settings: dict[str, Any], peft_config: Any = None) -> None:
    """TRL's SFTTrainer with these settings of its SFTConfig, and its defaults for the others."""
    import torch
    from datasets import load_dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Count(TrainerCallback):  # type: ignore[misc]
        tokens = 0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step_ended(self.tokens)

    count = Count()
    trainer = SFTTrainer(
        model=str(folder / "model"),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            max_steps=100_000,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            **settings,
        ),
        train_dataset=load_dataset("json", data_files=str(folder / "data.jsonl"), split="train"),
        peft_config=peft_config,
        callbacks=[count],
    )
    collate: Callable[[list[dict[str, Any]]], Any] = trainer.data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        count.tokens += sum(len(row["input_ids"]) for row in rows)
        return collate(rows)

    trainer.data_collator = counting
    trainer.train()
