"""What a GGUF has to say about itself, because programs go by it where no prompt of ours leads."""

from __future__ import annotations

from pathlib import Path

from trainyard.trainer.errors import invalid_config
from trainyard.trainer.exports.gguf_files.quantize import value
from trainyard.trainer.exports.handover.reference import Reference

END = "tokenizer.ggml.eos_token_id"
TEMPLATE = "tokenizer.chat_template"


def check_metadata(file: Path, reference: Reference, *, name: str) -> None:
    """The end of an answer and the chat template.

    Raises:
        UserError: one of them is missing or another than the model's.
    """
    import gguf

    reader = gguf.GGUFReader(file)
    end = value(reader, END)
    if reference.ends and end not in reference.ends:
        told = "names no token that ends an answer" if end is None else f"ends an answer with token {end}"
        raise invalid_config(
            f"{name} {told}, the model with {', '.join(map(str, sorted(reference.ends)))} ({' '.join(reference.end_texts)})",
            hint="set eos_token in the base's tokenizer_config.json or eos_token_id in its config.json",
        )
    template, own = value(reader, TEMPLATE), reference.tokenizer.chat_template
    if isinstance(own, str) and template != own:
        raise invalid_config(
            f"{name} holds the chat template {str(template)[:160]!r} instead of {own[:160]!r}",
            hint="tokenizer_config.json and chat_template.jinja of the base differ; remove the one that is wrong",
        )
