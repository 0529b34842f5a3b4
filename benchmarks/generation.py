"""Tokens that are generated per second: the loop of the methods that learn from rewards beside `model.generate`, as TRL calls it.

    python benchmarks/generation.py --model FOLDER_OR_GGUF [--prompts 2] [--group 8] [--tokens 48] [--rounds 3]

Both continue the same left-padded prompts, each `group` times, with the same number of tokens (no token ends an answer), in FP32, in
turns, so that whatever else the machine does hits both alike. Printed are the tokens per second of each round with their medians, the
same by the second of processor time, which other work on the machine hits less, and the ratios. OMP_NUM_THREADS says how many threads.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "trainer-image")]
QUESTIONS = (
    "List the pods of namespace web.",
    "How do I take the node forge out of service before its disk is replaced?",
    "Show the logs of pod api-0 from before it was restarted.",
    "Which deployments of namespace mail have no ready pods?",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from trainyard.trainer.methods.rollouts import sample
    from trainyard.trainer.models.quick import quicken
    from trainyard.trainer.volume.gguf import unpack

    folder = Path(asked.model)
    if folder.suffix == ".gguf":
        place = Path(tempfile.mkdtemp(prefix="generation-"))
        unpack(folder, place, str(folder))
        folder = place
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    trained: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    quicken(trained)  # as a model is while it is trained
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    texts = [QUESTIONS[n % len(QUESTIONS)] for n in range(asked.prompts) for _ in range(asked.group)]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    prompts = [tokenizer(text, return_tensors="np").input_ids[0] for text in texts]
    config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=asked.tokens,
        pad_token_id=tokenizer.pad_token_id,
    )

    def ours() -> int:
        made = sample(
            trained, prompts, length=asked.tokens, temperature=1.0, ends=[], padding_id=tokenizer.pad_token_id,
            batch_size=len(prompts), device="cpu", autocast=contextlib.nullcontext, seed=[1],
        )  # fmt: skip
        return int(made.mask.sum())

    def theirs() -> int:
        with torch.no_grad():
            made = model.generate(**batch, generation_config=config)
        return int(made.shape[0] * (made.shape[1] - batch.input_ids.shape[1]))

    model.generation_config.eos_token_id = None
    clocks = {"s": time.perf_counter, "processor s": time.process_time}
    rates: dict[str, dict[str, list[float]]] = {clock: {"trainyard": [], "generate": []} for clock in clocks}
    for turn in range(asked.rounds + 1):
        for name, run in (("trainyard", ours), ("generate", theirs)):
            started = [clock() for clock in clocks.values()]
            made = run()
            for (unit, clock), since in zip(clocks.items(), started, strict=True):
                if turn:  # the first of each warms up
                    rates[unit][name].append(made / (clock() - since))
    print(f"{torch.get_num_threads()} threads")
    for unit, found in rates.items():
        for name, each in found.items():
            rounds = ", ".join(f"{rate:.1f}" for rate in each)
            print(f"{name:>10}  {statistics.median(each):8.1f} tokens/{unit}   ({rounds})")
        ratios = sorted(one / other for one, other in zip(found["trainyard"], found["generate"], strict=True))
        print(f"     ratio  {statistics.median(ratios):8.1f}   ({ratios[0]:.1f} to {ratios[-1]:.1f})")


if __name__ == "__main__":
    main()
