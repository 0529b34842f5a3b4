"""A GGUF asked by llama.cpp, in this process: its server listens on a port of the loopback interface that nobody else knows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainyard.trainer.errors import first_line, invalid_config
from trainyard.trainer.exports.handover.answer import Answer, Question
from trainyard.trainer.exports.handover.reference import Reference

CONTEXT = 4096
SECONDS = 600
"""For one answer; a slow machine takes a while over a long prompt."""
GREEDY = {"temperature": 0, "samplers": ["top_k"], "top_k": 1, "cache_prompt": False, "return_tokens": True}


@dataclass
class LlamaCpp:
    """A loaded file."""

    url: str
    pool: Any
    server: Any

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """One request to its server."""
        reply = self.pool.request("POST", f"{self.url}{path}", body=json.dumps(body).encode(), timeout=SECONDS)
        found: dict[str, Any] = json.loads(reply.data)
        if reply.status != 200:
            raise invalid_config(
                f"llama.cpp refuses the exported file's {path.strip('/')}: {first_line(str(found.get('error', found)))}",
                hint="its chat template may use what llama.cpp cannot do",
            )
        return found

    def answer(self, question: Question, reference: Reference) -> Answer:
        """What it makes of the question."""
        prompt = (
            self.post("/apply-template", {"messages": list(question.messages)})["prompt"]
            if question.messages
            else question.text
        )
        tokens = self.post("/tokenize", {"content": prompt, "add_special": True, "parse_special": True})["tokens"]
        said = self.post("/completion", {"prompt": prompt, "n_predict": reference.new_tokens, **GREEDY})
        ids = tuple(number for number in said["tokens"] if number not in reference.ends)
        return Answer(
            str(prompt), ids, str(said["content"]), said["stop_type"] == "eos", tuple(tokens), said["tokens_evaluated"]
        )


def opened(file: Path, *, threads: int) -> LlamaCpp:
    """llama.cpp with the file; it lets go of it with the object.

    Raises:
        UserError: it does not load it.
    """
    import urllib3
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.warmup, params.verbosity, params.use_jinja = CONTEXT, 1, False, -1, True
    params.ui = False
    for of in (params.cpuparams, params.cpuparams_batch):
        # Without polling: a thread that waits for the others would keep the CPU from the very thread it waits for.
        of.n_threads, of.poll = threads, 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise invalid_config(
            f"llama.cpp does not load {file.name}: {first_line(error)}", hint="report it with the model's config.json"
        ) from error
    return LlamaCpp(server.listening_address, urllib3.PoolManager(retries=False), server)


def ask(file: Path, reference: Reference, *, threads: int) -> Sequence[Answer]:
    """All questions of the reference."""
    program = opened(file, threads=threads)
    return [program.answer(question, reference) for question in reference.questions]
