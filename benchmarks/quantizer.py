"""Our quantized GGUF files beside those of llama.cpp's own quantizer: types, bytes, perplexity, time and memory.

    python benchmarks/quantizer.py MODEL [TEXT]      (llama.cpp's quantizer is built at first use, from Ollama's copy of it)

MODEL is an f16 file, or a folder, which is converted to one first.

Perplexity is that of transformers on the unpacked weights, over TEXT in windows of 512 tokens; without TEXT, over Python's licence
and documentation of itself, which a small model has an opinion of. Memory is what a process and those below it hold by
themselves (RssAnon, sampled), because pages of a mapped file go when somebody else needs room.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import pydoc_data.topics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

WINDOW, WINDOWS = 512, 8


def own_memory(process: int | None = None) -> int:
    """Bytes of this process and those below it that belong to no file."""
    place = Path("/proc") / str(process or os.getpid())
    try:
        fields = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
        children = [int(n) for task in (place / "task").iterdir() for n in (task / "children").read_text().split()]
    except OSError:
        return 0  # it has just ended
    own = int(fields.get("RssAnon", "0").split()[0]) * 1024
    return own + sum(own_memory(child) for child in children)


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """In a process of its own: what it returns, seconds by the clock and of processors, peak memory."""
    end, start = multiprocessing.get_context("spawn").Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=_work, args=(work, start))
    process.start()
    found: dict[str, Any] = end.recv()
    process.join()
    return found


def _work(work: Callable[[], Any], pipe: Any) -> None:
    peak, done = [own_memory()], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], own_memory())

    watcher = threading.Thread(target=look)
    watcher.start()
    began, cpu = time.monotonic(), time.process_time()
    result = work()
    seconds = (time.monotonic() - began, time.process_time() - cpu)
    done.set()
    watcher.join()
    pipe.send({"result": result, "seconds": seconds[0], "cpuSeconds": seconds[1], "peakBytes": peak[0]})


class Ours:
    """Our own quantization; a class, so that another process can be told of it."""

    def __init__(self, source: Path, target: Path, quantization: str, threads: int) -> None:
        self.words = (source, target, quantization, threads)

    def __call__(self) -> Any:
        from trainyard.trainer.exports.gguf_files.quantize import quantize

        source, target, quantization, threads = self.words
        return quantize(source, target, quantization, threads=threads)


class Converted:
    """A folder as an f16 file."""

    def __init__(self, model: Path, target: Path) -> None:
        self.words = (model, target)

    def __call__(self) -> Any:
        from trainyard.trainer.exports.gguf_files.convert import convert

        convert(*self.words, name="model", field="benchmark")


class Theirs:
    """llama.cpp's, as a process below this one."""

    def __init__(self, source: Path, target: Path, quantization: str, threads: int) -> None:
        self.words = (source, target, quantization, threads)

    def __call__(self) -> Any:
        import subprocess

        from tests.servers.ollama_server import quantizer_program

        from trainyard.trainer.exports.gguf_files.recipe import FILE_TYPE

        source, target, quantization, threads = self.words
        command = [str(quantizer_program()), str(source), str(target), str(FILE_TYPE[quantization]), str(threads)]
        subprocess.run(command, check=True, capture_output=True)


def tensors(file: Path) -> dict[str, Any]:
    """By name: type and bytes."""
    import gguf

    return {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}


def compared(ours: Path, theirs: Path) -> dict[str, Any]:
    """How far two files are the same."""
    mine, other = tensors(ours), tensors(theirs)
    assert mine.keys() == other.keys(), mine.keys() ^ other.keys()
    types = {name: (mine[name].tensor_type.name, other[name].tensor_type.name) for name in mine}
    same = [name for name, (a, b) in types.items() if a == b]
    bytes_of = sum(mine[name].data.nbytes for name in same)
    differing = sum(int((mine[n].data.view("u1") != other[n].data.view("u1")).sum()) for n in same)
    return {
        "types": dict(Counter(a for a, _ in types.values())),
        "otherTypes": {name: pair for name, pair in types.items() if pair[0] != pair[1]},
        "differingBytesPerMillion": round(1e6 * differing / bytes_of, 1),
    }


def perplexity(file: Path, text: str) -> float:
    """Of a text, by transformers on the unpacked weights."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][: WINDOW * WINDOWS]
    losses = []
    with torch.inference_mode():
        for start in range(0, len(ids) - 1, WINDOW):
            part = torch.tensor([ids[start : start + WINDOW]])
            if part.shape[1] > 1:
                losses += [float(model(input_ids=part, labels=part).loss)] * (part.shape[1] - 1)
    return math.exp(sum(losses) / len(losses))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("text", type=Path, nargs="?")
    parser.add_argument("--quantizations", nargs="+", default=["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    text = given.text.read_text() if given.text else "\n\n".join(list(pydoc_data.topics.topics.values())[:40])
    with tempfile.TemporaryDirectory() as folder:
        source, made = given.source, {}
        if source.is_dir():
            source = Path(folder) / "f16.gguf"
            made = {key: one for key, one in measured(Converted(given.source, source)).items() if key != "result"}
        size = source.stat().st_size
        print(
            json.dumps({"f16": {"bytes": size, "perplexity": round(perplexity(source, text), 4), **made}}), flush=True
        )
        for quantization in given.quantizations:
            ours, theirs = Path(folder) / "ours.gguf", Path(folder) / "theirs.gguf"
            mine = measured(Ours(source, ours, quantization, given.threads))
            other = measured(Theirs(source, theirs, quantization, given.threads))
            found = {
                "bytes": [ours.stat().st_size, theirs.stat().st_size],
                "seconds": [round(one["seconds"], 2) for one in (mine, other)],
                "cpuSeconds": round(mine["cpuSeconds"], 2),
                "peakBytes": [mine["peakBytes"], other["peakBytes"]],
                **compared(ours, theirs),
                "perplexity": [round(perplexity(file, text), 4) for file in (ours, theirs)],
            }
            print(json.dumps({quantization: found}), flush=True)


if __name__ == "__main__":
    main()
