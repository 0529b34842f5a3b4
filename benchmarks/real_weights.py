"""The trainer on real weights and at real sizes, beside an earlier checkout of itself and beside plain TRL scripts.

    python benchmarks/real_weights.py lora                   SmolLM2-135M-Instruct, LoRA of rank 16 on every linear layer, FP32
    python benchmarks/real_weights.py head                   the shape of Gemma 3 270M (262,144 entries), half the tokens counted
    python benchmarks/real_weights.py dpo                    as lora, over pairs of answers; orpo likewise
    ... --before DIR                                         another checkout of this repository takes part
    ... --against trl-packed                                 TRL with packing, FP32, no gradient checkpointing

Prompt and completion are halves of the docstrings of Python's standard library, packed to 1,024 tokens, one sequence a step. A
rejected answer is the second half of another one; four pairs a step.
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

from contestants import train_with_trainyard, train_with_trl
from trainer import docstrings
from turns import ROOT, Process, Turns, contest, print_table

LENGTH = 1024
PAIRED = ("dpo", "orpo")
PAIRS = 64
"""So few because DPO measures the base on all of them before its first step."""
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
    halves = [(t[: len(t) // 2], t[len(t) // 2 :]) for t in texts]
    records: list[dict[str, str]] = [{"prompt": prompt, "completion": completion} for prompt, completion in halves]
    if what in PAIRED:
        others = halves[1 : PAIRS + 1]
        records = [
            {"prompt": p, "chosen": c, "rejected": other} for (p, c), (_, other) in zip(halves, others, strict=False)
        ]
    (folder / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def run_trainyard(what: str, folder: Path, name: str, turns: Turns) -> None:
    """LoRA or all weights, over prompts and completions."""
    adapter = {"adapter": {"lora": LORA}} if what != "head" else {}
    form, method, batch = ("Preference", what.upper(), 4) if what in PAIRED else ("PromptCompletion", "SFT", 1)
    source = {"storageUri": f"file://{folder / 'data.jsonl'}", "format": form}
    spec = {
        "model": {"storageUri": f"file://{folder / 'model'}", **adapter},
        "datasets": [{"name": "halves", **source}],
        "training": {"method": method, "maxLength": LENGTH, "perDeviceTrainBatchSize": batch, "precision": "FP32"},
    }
    train_with_trainyard(folder, name, spec, turns)


def run_trl(what: str, folder: Path, turns: Turns) -> None:
    """TRL at its quickest here: packed, FP32, without gradient checkpointing, which it has on by default."""
    from peft import LoraConfig

    lora = LoraConfig(
        r=LORA["rank"], lora_alpha=LORA["alpha"], lora_dropout=LORA["dropout"], target_modules="all-linear"
    )
    settings = {
        "per_device_train_batch_size": 1,
        "packing": True,
        "max_length": LENGTH,
        "bf16": False,
        "gradient_checkpointing": False,
        "model_init_kwargs": {"dtype": "float32"},
    }
    train_with_trl(folder, turns, settings=settings, peft_config=lora if what == "lora" else None)


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
    operations = 6 if what == "head" else 4
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
    parser.add_argument("what", choices=["lora", "head", *PAIRED, "contestant"])
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
    if given.what in PAIRED and given.against:
        parser.error("TRL takes part in lora and head only")
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
