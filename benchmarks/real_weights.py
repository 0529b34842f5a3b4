"""The trainer on real weights and at real sizes, beside an earlier checkout of itself and beside plain TRL scripts.

    python benchmarks/real_weights.py lora                   SmolLM2-135M-Instruct, LoRA of rank 16 on every linear layer, FP32
    python benchmarks/real_weights.py head                   the shape of Gemma 3 270M (262,144 entries), half the tokens counted
    ... --before DIR                                         another checkout of this repository takes part
    ... --against trl-packed                                 TRL with packing, FP32, no gradient checkpointing

Prompt and completion are halves of the docstrings of Python's standard library, packed to 1,024 tokens, one sequence a step.
Beside the tokens stands the share of what the machine's own matrix product does in a second: 4 operations a weight and token
(forward and back through frozen weights; 6 where they are trained), the output head at counted positions only.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trainer import docstrings
from turns import ROOT, Process, Turns, contest, print_table

LENGTH = 1024
LORA = {"rank": 16, "alpha": 32, "dropout": 0.0}
GEMMA = {
    "vocab_size": 262_144,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "tie_word_embeddings": True,
}
"""google/gemma-3-270m: 268 million weights, 168 million of them embeddings."""


def make_material(what: str, folder: Path) -> None:
    """Model and data."""
    sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "trainer-image"), str(ROOT / "tools")]
    import smollm2
    from trainyard.trainer.volume.gguf import unpack

    model = folder / "model"
    model.mkdir()
    unpack(smollm2.fetch(ROOT / ".cluster/servers"), model, "SmolLM2")
    if what == "head":
        import torch
        from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

        tokenizer = AutoTokenizer.from_pretrained(model)
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        for file in model.glob("*"):
            if not file.name.startswith("token"):
                file.unlink()
        torch.manual_seed(0)
        Gemma3ForCausalLM(Gemma3TextConfig(**GEMMA, pad_token_id=tokenizer.pad_token_id, **ends)).save_pretrained(model)
    texts = [text for text in docstrings(4000) if len(text) > 80]
    halves = ({"prompt": t[: len(t) // 2], "completion": t[len(t) // 2 :]} for t in texts)
    (folder / "data.jsonl").write_text("".join(json.dumps(half) + "\n" for half in halves))


def run_trainyard(what: str, folder: Path, name: str, turns: Turns) -> None:
    """The real train step, with a look at its counters after each step."""
    for variable, place in {
        "RUN_FILE": f"{name}.json",
        "WORK_DIR": f"volume/{name}",
        "CACHE_DIR": f"cache-{name}",
        "VOLUMES_DIR": "volumes",
        "SECRETS_DIR": "secrets",
    }.items():
        os.environ[f"TRAINYARD_{variable}"] = str(folder / place)
    os.environ["TRAINYARD_TERMINATION_LOG"] = ""
    model: dict[str, Any] = {"storageUri": f"file://{folder / 'model'}"}
    run = {
        "apiVersion": "trainyard.dev/v1alpha1",
        "kind": "TrainingRun",
        "metadata": {"name": "bench"},
        "spec": {
            "model": model | ({"adapter": {"lora": LORA}} if what == "lora" else {}),
            "datasets": [
                {"name": "halves", "storageUri": f"file://{folder / 'data.jsonl'}", "format": "PromptCompletion"}
            ],
            "training": {
                "method": "SFT",
                "maxSteps": 100_000,
                "maxLength": LENGTH,
                "perDeviceTrainBatchSize": 1,
                "precision": "FP32",
            },
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


def run_trl(what: str, folder: Path, turns: Turns) -> None:
    """TRL at its quickest here: packed, FP32, without gradient checkpointing, which it has on by default."""
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Count(TrainerCallback):  # type: ignore[misc]
        tokens = 0

        def on_step_end(self, *_: Any, **__: Any) -> None:
            turns.step_ended(self.tokens)

    count = Count()
    lora = LoraConfig(
        r=LORA["rank"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], target_modules="all-linear"
    )
    trainer = SFTTrainer(
        model=str(folder / "model"),
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            max_steps=100_000,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
            per_device_train_batch_size=1,
            packing=True,
            max_length=LENGTH,
            bf16=False,
            gradient_checkpointing=False,
            model_init_kwargs={"dtype": "float32"},
        ),
        train_dataset=load_dataset("json", data_files=str(folder / "data.jsonl"), split="train"),
        peft_config=lora if what == "lora" else None,
        callbacks=[count],
    )
    collate = trainer.data_collator

    def counting(rows: list[dict[str, Any]]) -> Any:
        count.tokens += sum(len(row["input_ids"]) for row in rows)
        return collate(rows)

    trainer.data_collator = counting
    trainer.train()


def matrix_rate() -> float:
    """FP32 operations a second of this machine's matrix product, in a shape of SmolLM2's layers."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    rows, weights = torch.randn(LENGTH, 576), torch.randn(1536, 576)
    best = 0.0
    for _ in range(7):
        started = time.perf_counter()
        for _ in range(50):
            rows @ weights.T
        best = max(best, 50 * 2 * LENGTH * 576 * 1536 / (time.perf_counter() - started))
    return best


def work_of(what: str, folder: Path, *, counted: float) -> float:
    """Operations of matrix products a token; `counted` is the share of tokens whose loss counts."""
    config = json.loads((folder / "model/config.json").read_text())
    width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    head_dim = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    linear = layers * (2 * width * queries + 2 * width * keys + 3 * width * inner)
    operations = 4 if what == "lora" else 6
    return operations * (linear + counted * config["vocab_size"] * width)


def compare(what: str, folder: Path, *, before: Path | None, against: list[str], rounds: int, steps: int) -> None:
    """Tokens a second, in turns."""
    make_material(what, folder)
    names = ["trainyard", *(["before"] if before else []), *against]
    rate = matrix_rate()
    arguments = ["--what", what, "--steps", str(steps)]
    processes: list[Process] = contest(Path(__file__), names, folder, arguments, rounds=rounds, before=before)
    print_table(processes, rounds=rounds, steps=steps)
    rate = max(rate, matrix_rate())
    work = work_of(what, folder, counted=0.5)
    print(
        f"\nmatrix product: {rate / 1e9:.0f} GFLOP/s at best; {work / 1e9:.2f} GFLOP a token, half of the tokens counted"
    )
    for process in processes:
        print(f"{process.name:16} {process.rate('seconds') * work / rate:6.0%} of it")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["lora", "head", "contestant"])
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--what", dest="workload", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="per turn")
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--against", nargs="*", default=[], choices=["trl-packed"])
    given = parser.parse_args()
    if given.what == "contestant":
        turns = Turns(given.steps, 2)
        if given.name == "trl-packed":
            run_trl(given.workload, given.folder, turns)
        else:
            run_trainyard(given.workload, given.folder, given.name, turns)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(
            given.what,
            Path(folder),
            before=given.before.resolve() if given.before else None,
            against=given.against,
            rounds=given.rounds,
            steps=given.steps,
        )


if __name__ == "__main__":
    main()
