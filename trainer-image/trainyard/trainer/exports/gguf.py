"""GGUF files of the result, in the run's folder, each asked the run's own prompts before it is there.

model/ -> f16 -> equal to transformers, token by token? -> each quantization -> same template and ends; how far equal?
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.gguf import Gguf
from trainyard.trainer.context import RunContext
from trainyard.trainer.exports.exported import Exported, digest_of, files_dir
from trainyard.trainer.exports.gguf_files.convert import convert
from trainyard.trainer.exports.gguf_files.quantize import quantize
from trainyard.trainer.exports.gguf_files.suitable import check_suitable
from trainyard.trainer.exports.handover.checked import check_gguf, reference_of
from trainyard.trainer.log import say
from trainyard.trainer.machine import threads
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import commit_folder, read_made_from
from trainyard.trainer.volume.result import find_result

FULL = "f16"


def check(context: RunContext, export: Export, target: Gguf) -> None:
    """Whether the model can become one.

    Raises:
        UserError: it cannot.
    """
    check_suitable(context, field=export.field)


def send(
    context: RunContext, export: Export, target: Gguf, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Make the files.

    Raises:
        UserError: the model cannot become one, or a file does not answer as the model does.
    """
    made = make(
        context, export, files_dir(context, export.name), quantizations=target.quantizations, stem=target.file_name
    )
    names = tuple(f"{target.file_name}-{q}.gguf" for q in target.quantizations)
    return Exported(
        uri=made.path.relative_to(context.volume).as_posix(),
        digest=digest_of(made),
        files=names,
        facts={str(key): str(value) for key, value in made.manifest["facts"].items()},
    )


def make(context: RunContext, export: Export, folder: Path, *, quantizations: list[Any], stem: str) -> Any:
    """A committed folder with a file for each quantization; the one that is there if it was made of this result."""
    result = find_result(context)
    assert result is not None, "the frame has asked for it"
    key = f"{digest_of(result)} {stem} {' '.join(quantizations)} {version('libgguf')} {version('gguf')}"
    if (made := read_made_from(folder, key)) is not None:
        return made

    def write(place: Path) -> Mapping[str, Any]:
        facts, started = {}, time.monotonic()
        whole = place / f"{stem}-{FULL}.gguf"
        convert(context.model_dir, whole, name=context.run.metadata.name, field=export.field)
        say(f"{export.field}: {whole.name} after {time.monotonic() - started:.1f} s")
        reference = reference_of(context)
        for quantization in (FULL, *(q for q in quantizations if q != FULL)):
            file = place / f"{stem}-{quantization}.gguf"
            if quantization != FULL:
                types = quantize(whole, file, quantization, threads=threads.available())
                told = ", ".join(f"{count} {name}" for name, count in types.items())
                say(f"{export.field}: {file.name}, {file.stat().st_size / 1e6:.1f} MB ({told})")
            agreement = check_gguf(file, reference, field=export.field, exact=quantization == FULL)
            facts[f"{quantization}.agreement"] = f"{agreement.share:.4f}"
            facts[f"{quantization}.bytes"] = str(file.stat().st_size)
        if FULL not in quantizations:
            whole.unlink()
        facts["seconds"] = f"{time.monotonic() - started:.1f}"
        return {"facts": facts}

    return commit_folder(folder, write, key=key)
