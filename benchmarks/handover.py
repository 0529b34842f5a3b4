"""Peak memory of the export steps gguf and ollama, each as the process that a pod runs, with all processes below it.

    python benchmarks/handover.py MODEL [--quantizations f16 Q4_K_M] [--ollama]     (MODEL: a folder with safetensors)

Memory is what the processes hold by themselves (RssAnon, sampled every 10 ms): pages of a mapped file go when somebody else needs
room. The Ollama server is no part of the step.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
sys.path.insert(0, str(ROOT / "benchmarks"))


def step(run: Any, name: str) -> dict[str, Any]:
    """One export step: peak memory, seconds by the clock."""
    from quantizer import own_memory

    environment = {**os.environ, **run.environment, "TRAINYARD_STEP": f"export-{name}"}
    began, peak = time.monotonic(), 0
    process = subprocess.Popen(
        [sys.executable, "-m", "trainyard.trainer", "export", "--name", name], env=environment, stdout=subprocess.PIPE
    )
    while process.poll() is None:
        peak = max(peak, own_memory(process.pid))
        time.sleep(0.01)
    if process.returncode != 0:
        sys.exit(f"{name}: {process.stdout.read().decode()[-2000:] if process.stdout else ''}")
    return {"peakBytes": peak, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    from tests.servers.ollama_server import ollama
    from tests.unit.trainer.exports.results import trained

    from trainyard.trainer.volume.commit import commit_folder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--quantizations", nargs="+", default=["f16"])
    parser.add_argument("--ollama", action="store_true")
    given = parser.parse_args()
    exports: list[dict[str, Any]] = [{"name": "files", "gguf": {"quantizations": given.quantizations}}]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if given.ollama:
            (folder / "ollama").mkdir()
            url = stack.enter_context(ollama(folder / "ollama")).url
            exports.append({"name": "serve", "dependsOn": ["files"], "ollama": {"url": url, "model": "measured:v1"}})
        run = trained(folder, exports)
        shutil.rmtree(run.context.model_dir)
        commit_folder(
            run.context.model_dir, lambda place: shutil.copytree(given.model, place, dirs_exist_ok=True) and None
        )
        (run.context.work_dir / "dataset").mkdir()
        for export in exports:
            found = step(run, export["name"])
            size = next((run.context.work_dir / "exports").rglob("*-f16.gguf")).stat().st_size
            share = round(found["peakBytes"] / size, 2)
            print(json.dumps({export["name"]: {**found, "f16Bytes": size, "share": share}}), flush=True)


if __name__ == "__main__":
    main()
