"""The result in an Ollama server.

    prepare: does it answer?  ->  ...  ->  the GGUF as a blob (unless it is there), a model of it with our template,
                                           does it say what it was told?, the handover check

What is sent is a GGUF, because Ollama's own import of safetensors knows fewer models; and a template, because of the one in the
GGUF it runs nothing (see `ollama_api/dialog.py`). All of it may be done twice: a blob has its digest for a name.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.api.addresses import keep_secret
from trainyard.api.run.exports import Export
from trainyard.api.run.targets.ollama import Ollama as Target
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports.exported import Exported, files_dir
from trainyard.trainer.exports.gguf import FULL, make
from trainyard.trainer.exports.gguf_files.quantize import value
from trainyard.trainer.exports.gguf_files.suitable import check_suitable
from trainyard.trainer.exports.handover.checked import reference_of
from trainyard.trainer.exports.handover.compare import Bar, compare
from trainyard.trainer.exports.handover.reference import Reference, render
from trainyard.trainer.exports.ollama_api.answers import ask
from trainyard.trainer.exports.ollama_api.client import Ollama
from trainyard.trainer.exports.ollama_api.dialog import PLAIN, Dialog, dialog_of
from trainyard.trainer.exports.ollama_api.heard import Ear
from trainyard.trainer.log import say
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import flush_and_hash


def check(context: RunContext, export: Export, target: Target) -> None:
    """Whether the server answers, and the model can become a GGUF.

    Raises:
        UserError: it does not, or it cannot.
    """
    check_suitable(context, field=export.field)
    say(f"{export.field}: Ollama {server_of(context, export, target).version()} at {target.url}")


def send(
    context: RunContext, export: Export, target: Target, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Make the model there.

    Raises:
        UserError: the server refuses or is away, or the model does not answer there as it was trained to.
    """
    server, reference = server_of(context, export, target), reference_of(context)
    with tempfile.TemporaryDirectory(dir=context.run_dir, prefix=".tmp-") as scratch:
        file = _file(context, export, target, inputs, Path(scratch))
        dialog = dialog_for(reference, file, field=export.field)
        digest = f"sha256:{flush_and_hash(file)}"
        if server.has_blob(digest):
            say(f"{export.field}: the server has {file.name} already")
        else:
            server.push_blob(digest, file)
        exact = _bits(file) == FULL
    wanted = creation(target.model, file.name, digest, dialog, reference)
    server.create(wanted)
    _check_taken(server, wanted, field=export.field)
    try:
        answers = ask(server, target.model, reference, dialog=dialog)
    finally:
        server.keep(target.model, _keep_alive(target.keep_alive))
    bar = Bar(f"{export.field}: {target.model}", exact, hears=Ear(reference.tokenizer))
    agreement = compare(reference, answers, bar=bar)
    say(f"{bar.name}: {agreement.equal} of {agreement.tokens} tokens as the trained model")
    return Exported(
        uri=f"{server.url}/{target.model}",
        digest=server.digest_of(target.model),
        version=server.version(),
        facts=agreement.facts(),
    )


def server_of(context: RunContext, export: Export, target: Target) -> Ollama:
    """The server, with what its Secret holds."""
    if target.secret_ref is None:
        return Ollama.at(target.url, field=export.field)
    folder = context.secrets_dir / target.secret_ref.name
    token = (folder / "token").read_text().strip() if (folder / "token").is_file() else None
    ca = folder / "ca.crt"
    if token is None and not ca.is_file():
        raise invalid_config(
            f"{export.field}.secretRef: secret {target.secret_ref.name} has neither the key token nor ca.crt at {folder}",
            hint="add what the proxy before the server asks for, or remove secretRef",
        )
    if token:
        keep_secret({"token": token})
    return Ollama.at(target.url, field=export.field, token=token, ca_file=str(ca) if ca.is_file() else None)


def dialog_for(reference: Reference, file: Path, *, field: str) -> Dialog | None:
    """The model's chat template as Ollama's; None for a model without one.

    Raises:
        UserError: it cannot be written so, or not so that it is the same on the run's prompts.
    """
    import gguf

    tokenizer = reference.tokenizer
    if not tokenizer.chat_template:
        return None

    def rendered(messages: Any, ask: bool) -> str:
        return str(
            tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False, add_generation_prompt=ask)
        )

    dialog = dialog_of(rendered)
    for question in reference.questions if dialog is not None else ():
        if (
            question.messages
            and dialog is not None
            and dialog.render(question.messages) != render(tokenizer, question.messages)
        ):
            dialog = None
    if dialog is None:
        raise invalid_config(
            f"{field}: the model's chat template does more than to put texts between turns, which Ollama's cannot",
            hint="hand the GGUF to llama.cpp's server, which runs the template itself (export gguf), or train with a plainer template",
        )
    adds_bos = value(gguf.GGUFReader(file), "tokenizer.ggml.add_bos_token")
    return dialog.without(reference.bos) if adds_bos else dialog


def creation(model: str, name: str, digest: str, dialog: Dialog | None, reference: Reference) -> dict[str, Any]:
    """The body of the request that makes the model."""
    system = dialog.default_system if dialog else ""
    return {
        "model": model,
        "files": {name: digest},
        "template": dialog.template() if dialog else PLAIN,
        **({"system": system} if system else {}),
        **({"parameters": {"stop": reference.end_texts}} if reference.ends else {}),
    }


def _check_taken(server: Ollama, wanted: Mapping[str, Any], *, field: str) -> None:
    model, shown = wanted["model"], server.show(str(wanted["model"]))
    for name in ("template", "system"):
        found, sent = None if shown is None else str(shown.get(name, "")), str(wanted.get(name, ""))
        if found != sent:
            raise invalid_config(
                f"{field}: Ollama shows the {name} {str(found)[:160]!r} of {model} instead of {sent[:160]!r}",
                hint="another program may have written the same name at the same time; give the model a name of its own",
            )


def _file(context: RunContext, export: Export, target: Target, inputs: Mapping[str, Exported], scratch: Path) -> Path:
    for before, exported in inputs.items():
        files = [name for name in exported.files if name.endswith(".gguf")]
        if files:
            wanted = [
                name for name in files if target.quantization is None or name.endswith(f"-{target.quantization}.gguf")
            ]
            if not wanted:
                raise invalid_config(
                    f"{export.field}.quantization {target.quantization}: export {before} has made {', '.join(files)}",
                    hint=f"add {target.quantization} to its quantizations, or leave the field out",
                )
            return files_dir(context, before) / wanted[0]
    quantization = target.quantization or FULL
    make(context, export, scratch / "made", quantizations=[quantization], stem="model")
    return scratch / "made" / f"model-{quantization}.gguf"


def _bits(file: Path) -> str:
    return file.stem.rpartition("-")[2]


def _keep_alive(text: str) -> str | int:
    """A number where the server would miss a unit."""
    return int(text) if text in ("0", "-1") else text
