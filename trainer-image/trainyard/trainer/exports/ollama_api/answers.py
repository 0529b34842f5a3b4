"""The handover check's questions to a model in Ollama.

It tells text and counts, no tokens. So the answer is laid over the reference's: as far as the two texts are the same, the
tokens are, and what follows is cut by the model's own tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trainyard.trainer.exports.handover.answer import Answer, Question
from trainyard.trainer.exports.handover.reference import Reference
from trainyard.trainer.exports.ollama_api.client import Ollama
from trainyard.trainer.exports.ollama_api.dialog import Dialog
from trainyard.trainer.exports.ollama_api.heard import Ear

OPTIONS = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "num_ctx": 4096, "seed": 1}
BETWEEN = "5m"
"""How long the server keeps the model from one question to the next."""


def ask(server: Ollama, model: str, reference: Reference, *, dialog: Dialog | None) -> Sequence[Answer]:
    """All questions of the reference."""
    ear = Ear(reference.tokenizer)
    return [
        _ask(server, model, question, one, reference, dialog=dialog, ear=ear)
        for question, one in zip(reference.questions, reference.answers, strict=True)
    ]


def _ask(
    server: Ollama,
    model: str,
    question: Question,
    one: Answer,
    reference: Reference,
    *,
    dialog: Dialog | None,
    ear: Ear,
) -> Answer:
    body: dict[str, Any] = {
        "model": model,
        "options": {**OPTIONS, "num_predict": reference.new_tokens},
        "keep_alive": BETWEEN,
    }
    if question.messages:
        body["messages"] = [dict(message) for message in question.messages]
        rendered = server.chat({**body, "_debug_render_only": True}).get("_debug_info") or {}
        # Servers that do not tell are believed to render as they were told; the number of tokens has to be right all the same.
        prompt = rendered.get("rendered_template") or (dialog.render(question.messages) if dialog else "")
        said = server.chat(body)
        text = str((said.get("message") or {}).get("content", ""))
    else:
        prompt = question.text
        said = server.generate({**body, "prompt": question.text, "raw": True})
        text = str(said.get("response", ""))
    ended = said.get("done_reason") == "stop"
    ids = ids_of(text, one, reference.tokenizer, hears=ear)
    return Answer(prompt, ids, text, ended, prompt_count=said.get("prompt_eval_count"))


def ids_of(text: str, one: Answer, tokenizer: Any, *, hears: Callable[[Sequence[int]], str]) -> tuple[int, ...]:
    """The tokens of a text, given an answer that it should be."""
    if text.strip() == hears(one.ids).strip():
        return one.ids
    place, start = 0, ""
    for count in range(1, len(one.ids) + 1):
        begun = hears(one.ids[:count])
        if not text.lstrip().startswith(begun.lstrip()):
            break
        place, start = count, begun
    rest = text.lstrip()[len(start.lstrip()) :]
    return (*one.ids[:place], *tokenizer(rest, add_special_tokens=False)["input_ids"]) if rest else one.ids[:place]
