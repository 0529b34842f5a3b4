"""The trainer side by side with plain TRL scripts: same model, same data, same number of sequences per step.

    python benchmarks/trainer.py speed          tokens per second
    python benchmarks/trainer.py memory         peak memory with a vocabulary of 262,144

Every contestant is a process of its own, with its own settings of threads and memory. They take turns: a few steps of one,
then of the next, round after round, while the others sleep, so that whatever else the machine does hits all of them alike.
Only real tokens count, never padding. The first steps of each are not measured.

    trainyard     the train step of this repository, from its prepared data
    trl           a TRL script with TRL's defaults (batch 8, max_length 1024, no packing)
    trl-packed    the same with packing at maxLength

With :FP32 behind the name, without TRL's default of BF16, which is slow on a CPU that does not multiply in it.

The model is a llama of 8.8 million parameters with random weights, the data the docstrings of Python's standard library:
short examples, as in most fine-tuning.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from contestants import train_with_trainyard, train_with_trl
from turns import Turns, contest, print_table

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
VOCABULARY = 9500
LARGE_VOCABULARY = 262_144


def docstrings(limit: int) -> list[str]:
    """Docstrings of the standard library, in a fixed order."""
    found: list[str] = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        try:
            tree = ast.parse(file.read_text())
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and (text := ast.get_docstring(node)):
                found.append(text)
    return found[:limit]


def make_material(folder: Path, *, vocabulary: int, model: dict[str, Any], examples: int) -> None:
    """A model with its tokenizer, and the data."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    texts = docstrings(examples)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    size = min(vocabulary, VOCABULARY)
    tokenizer.train_from_iterator(
        docstrings(100_000),
        trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=vocabulary, pad_token_id=0, bos_token_id=1, eos_token_id=2, **model)
    built = LlamaForCausalLM(config)
    built.save_pretrained(folder / "model")
    fast.save_pretrained(folder / "model")
    (folder / "data.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    lengths = [len(ids) for ids in fast(texts)["input_ids"]]
    print(
        f"{sum(p.numel() for p in built.parameters()):,} parameters; {len(texts):,} docstrings, {sum(lengths):,} tokens, "
        f"median {statistics.median(lengths):.0f}",
        flush=True,
    )


def run_trainyard(folder: Path, *, length: int, precision: str, turns: Turns) -> None:
    """The docstrings as plain text."""
    spec = {
        "model": {"storageUri": f"file://{folder / 'model'}"},
        "datasets": [{"name": "docstrings", "storageUri": f"file://{folder / 'data.jsonl'}", "format": "Text"}],
        "training": {
            "method": "CPT",
            "maxLength": length,
            "perDeviceTrainBatchSize": BATCH,
            "precision": precision,
        },
    }
    train_with_trainyard(folder, f"bench-{length}-{precision}", spec, turns)


def run_trl(folder: Path, *, packing: bool, length: int, precision: str, turns: Turns) -> None:
    """What TRL's documentation shows, with its defaults."""
    settings: dict[str, Any] = {"packing": True, "max_length": length} if packing else {}
    if precision == "FP32":
        settings["bf16"] = False  # TRL's default is True, also on a CPU
    train_with_trl(folder, turns, settings=settings)


def contestant(name: str, folder: Path, *, length: int, steps: int, warm_up: int) -> None:
    """One process of the comparison."""
    turns = Turns(steps, warm_up)
    kind, _, precision = name.partition(":")
    if kind == "trainyard":
        run_trainyard(folder, length=length, precision=precision or "Auto", turns=turns)
    else:
        run_trl(folder, packing=kind == "trl-packed", length=length, precision=precision, turns=turns)


def speed(folder: Path, *, names: list[str], rounds: int, length: int, steps: int, warm_up: int) -> None:
    """Tokens per second, in turns."""
    make_material(folder, vocabulary=VOCABULARY, model=MODEL, examples=3000)
    arguments = ["--length", str(length), "--steps", str(steps), "--warm-up", str(warm_up)]
    processes = contest(Path(__file__), names, folder, arguments, rounds=rounds)
    print_table(processes, rounds=rounds, steps=steps)


def memory_of(kind: str, folder: Path, *, tokens: int) -> dict[str, int]:
    """In a process of its own: bytes that forward and backward through the model take on top of the model and its gradients."""
    code = f"""
import json, resource, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from trainyard.trainer.machine.device import peak_memory_of_process
from trainyard.trainer.methods.loss import sum_of_losses
model = AutoModelForCausalLM.from_pretrained({str(folder / "model")!r})
head = {kind!r}
ids = torch.randint(3, 9000, (2, {tokens} // 2))
inputs = dict(input_ids=ids, labels=ids.clone(), position_ids=torch.arange(ids.shape[1]).expand(2, -1).contiguous())
for p in model.parameters():
    p.grad = torch.full_like(p, 1e-9)  # not zeros: those take no memory before something is added to them
before = peak_memory_of_process()
if head == "trainyard":
    value = sum_of_losses(model, inputs) / ids.numel()  # what a training step does
else:
    value = model(input_ids=ids, labels=inputs["labels"]).loss
value.backward()
print(json.dumps(dict(before=before, after=peak_memory_of_process(), loss=float(value))))
"""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT / 'trainer-image'}", "HF_HUB_OFFLINE": "1"}
    found: dict[str, int] = json.loads(
        subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True).stdout
    )
    return found


def memory(folder: Path, *, tokens: int) -> None:
    """Peak memory of the output head."""
    small = {**MODEL, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    make_material(folder, vocabulary=LARGE_VOCABULARY, model={**small, "num_key_value_heads": 2}, examples=100)
    print(f"\nvocabulary {LARGE_VOCABULARY:,}, {tokens} tokens at a time\n")
    taken = {}
    for kind in ("trainyard", "transformers"):
        found = memory_of(kind, folder, tokens=tokens)
        taken[kind] = found["after"] - found["before"]
        print(f"{kind:14} {taken[kind] / 1e6:9,.0f} MB on top of the model, loss {found['loss']:.4f}")
    print(f"{taken['transformers'] / taken['trainyard']:.1f} times less")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "contestant"])
    parser.add_argument("name", nargs="?", help=argparse.SUPPRESS)
    parser.add_argument("folder", nargs="?", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="per turn")
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--length", type=int, default=512, help="maxLength of packed sequences")
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument(
        "--against", nargs="*", default=["trl", "trl-packed"], help="for example trl:FP32 trl-packed:FP32"
    )
    given = parser.parse_args()
    if given.what == "contestant":
        contestant(given.name, given.folder, length=given.length, steps=given.steps, warm_up=given.warm_up)
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.what == "speed":
            names = ["trainyard", *given.against]
            speed(
                Path(folder),
                names=names,
                rounds=given.rounds,
                length=given.length,
                steps=given.steps,
                warm_up=given.warm_up,
            )
        else:
            memory(Path(folder), tokens=given.tokens)


if __name__ == "__main__":
    main()
