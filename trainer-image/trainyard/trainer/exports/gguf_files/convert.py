"""From a model folder to an f16 GGUF, by llama.cpp's converter in a process of its own (see requirements-converter.in)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.exports.gguf_files import converter_process
from trainyard.trainer.exports.gguf_files.pretokenizer import pre_tokenizer_of

GIVING_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""Has glibc give memory back to the system that it would keep: some 30 MB of the converter's peak."""
CONVERTER = Path(sys.prefix) / "converter"
"""Beside the packages of this Python, in the image and in a development environment."""


def convert(model: Path, target: Path, *, name: str, field: str, converter: Path = CONVERTER) -> None:
    """Write `target` from the safetensors, configuration and tokenizer in `model`; `name` is what the file calls the model.

    Raises:
        UserError: no such model or tokenizer is known to llama.cpp, or the folder lacks what it needs.
    """
    if not converter.is_dir():
        raise invalid_config(
            f"{field}: the converter is not in {converter}",
            hint="on a developer's machine `make venv` puts it there; an image of your own needs trainer-image/requirements-converter.lock",
        )
    words = [str(converter), str(model), str(target), name, pre_tokenizer_of(model) or "", _end_of(model)]
    process = [sys.executable, "-E", str(Path(converter_process.__file__)), *words]
    done = subprocess.run(process, capture_output=True, text=True, check=False, env={**os.environ, **GIVING_BACK})
    if done.returncode == 0:
        return
    target.unlink(missing_ok=True)
    if done.returncode == converter_process.UNKNOWN_TOKENIZER:
        raise unknown_tokenizer(field, model)
    if done.returncode == converter_process.UNKNOWN_ARCHITECTURE:
        raise unknown_architecture(field, done.stdout.strip().splitlines()[-1])
    if done.returncode < 0:  # killed: by the kernel for its memory, or with this process
        raise MemoryError(f"the converter was ended by signal {-done.returncode}")
    last = (done.stderr.strip().splitlines() or done.stdout.strip().splitlines() or ["no word about why"])[-1]
    if "No space left" in done.stderr:
        raise OSError(28, last, str(target))
    raise invalid_config(
        f"{field}: llama.cpp's converter refuses the model: {first_line(last)}",
        hint="hand out the model as safetensors (s3, hub, mlflow), or use a base that llama.cpp knows",
    )


def unknown_tokenizer(field: str, model: Path) -> Exception:
    """The refusal, with what is there and the way out."""
    kind = _read(model / "tokenizer.json").get("pre_tokenizer")
    return invalid_config(
        f"{field}: llama.cpp has no name for how this tokenizer cuts text (pre_tokenizer {json.dumps(kind)[:200]})",
        hint="start from a published base and its own tokenizer, or let spec.model.scratch train one; safetensors can be handed "
        "out in any case (s3, hub, mlflow)",
    )


def unknown_architecture(field: str, name: str) -> Exception:
    """The refusal of a model class that the converter has no rules for."""
    return invalid_config(
        f"{field}: llama.cpp has no rules for a model of class {name}",
        hint="hand out the model as safetensors (s3, hub, mlflow), or use a base such as Llama, Qwen, Gemma, Phi or Mistral",
    )


def known_architectures(converter: Path = CONVERTER) -> frozenset[str]:
    """Model classes that the converter has rules for, read from its table without importing it (it would import torch)."""
    import ast

    table = converter / "conversion" / "__init__.py"
    if not table.exists():
        return frozenset()
    for node in ast.parse(table.read_text()).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "TEXT_MODEL_MAP" and node.value is not None:
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def end_ids(model: Path) -> tuple[int, ...]:
    """Tokens that end an answer, as transformers takes them: generation_config.json before config.json."""
    for name in ("generation_config.json", "config.json"):
        found = _read(model / name).get("eos_token_id")
        if isinstance(found, int):
            return (found,)
        if isinstance(found, list) and found:
            return tuple(int(number) for number in found)
    return ()


def _end_of(model: Path) -> str:
    ends = end_ids(model)
    return str(ends[0]) if ends else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
