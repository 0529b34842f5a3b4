"""The result on a Hugging Face hub.

    prepare: the repository is made, the token may write?  ->  ...  ->  one commit with model, adapter and model card

A token that may not write is found before a GPU is asked for. The upload is made from the committed folders on the volume, and
what the hub has already is not sent again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from trainyard.api.run.exports import Export
from trainyard.api.run.targets.hub import Hub
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import invalid_config, source_unavailable
from trainyard.trainer.exports.exported import Exported, digest_of
from trainyard.trainer.log import say
from trainyard.trainer.models.card import CARD, base_of, model_card
from trainyard.trainer.reporter import Reporter
from trainyard.trainer.volume.commit import Committed, read_committed
from trainyard.trainer.volume.origin import PAUSES, TRIES, hub_token

ADAPTER_CONFIG = "adapter_config.json"
T = TypeVar("T")


def check(context: RunContext, export: Export, target: Hub) -> None:
    """Make the repository if need be, and see that the token may write to it.

    Raises:
        UserError: it may not, or the hub does not answer.
    """
    api, field = _api(context, export, target), export.field
    _guarded(field, target, lambda: api.create_repo(target.repo, private=target.private, exist_ok=True))
    _guarded(field, target, lambda: api.auth_check(target.repo, write=True))
    say(f"{field}: the result will go to {target.repo}")


def send(
    context: RunContext, export: Export, target: Hub, inputs: Mapping[str, Exported], reporter: Reporter
) -> Exported:
    """Upload the committed result as one commit.

    Raises:
        UserError: the hub refuses, or does not answer.
    """
    from huggingface_hub import CommitOperationAdd

    api, field = _api(context, export, target), export.field
    result, started = _result(context), time.monotonic()
    files = dict(_files(context, target, result))

    def commit() -> Any:
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        return api.create_commit(target.repo, operations, commit_message=f"Run {context.run.metadata.name}")

    done = _guarded(field, target, commit)
    say(f"hub: {target.repo}@{done.oid}, {len(files)} files after {time.monotonic() - started:.1f} s")
    return Exported(uri=f"hf://{target.repo}@{done.oid}", digest=digest_of(result), version=str(done.oid))


def _api(context: RunContext, export: Export, target: Hub) -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=hub_token(context.secrets_dir, target.secret_ref, field=f"{export.field}.secretRef"))


def _result(context: RunContext) -> Committed:
    found = read_committed(context.model_dir) or read_committed(context.adapter_dir)
    assert found is not None, "the training step has committed its result"
    return found


def _is_whole(result: Committed) -> bool:
    return ADAPTER_CONFIG not in result.manifest["files"]


def _files(context: RunContext, target: Hub, result: Committed) -> Iterator[tuple[str, str | bytes]]:
    """Path in the repository, and file or content: the result, the adapter beside the model it was merged into, the card."""
    folders = [("", result)]
    if _is_whole(result) and (adapter := read_committed(context.adapter_dir)) is not None:
        folders.append(("adapter/", adapter))
    for prefix, folder in folders:
        for name in folder.manifest["files"]:
            if name == ADAPTER_CONFIG:
                yield prefix + name, _adapter_config(context, folder.path / name)
            elif name != CARD:  # peft's template of one
                yield prefix + name, str(folder.path / name)
    title, about = target.repo.partition("/")[2], result.manifest
    card = partial(model_card, context, title=title, step=about.get("step"), digest=about.get("data"), base=result.path)
    yield CARD, card(whole=_is_whole(result)).encode()


def _adapter_config(context: RunContext, file: Path) -> bytes:
    """With the base's name on the hub instead of its folder in this pod."""
    config = json.loads(file.read_text())
    repository, revision = base_of(context)
    config |= {"base_model_name_or_path": repository, "revision": revision}
    return json.dumps(config, indent=2).encode()


def _guarded(field: str, target: Hub, call: Callable[[], T]) -> T:
    """What the hub refuses is told at once; silence and its own faults are met with another try."""
    import httpx2
    from huggingface_hub import errors

    last = ""
    for number in range(1, TRIES + 1):
        try:
            return call()
        except ValueError as error:  # the name breaks the hub's rules, or its large-file store says no
            raise invalid_config(
                f"{field}.repo {target.repo}: {str(error).strip().partition(chr(10))[0][:200]}",
                hint="correct the name, or make room on the hub",
            ) from error
        # RuntimeError: what the client makes of a file whose upload failed.
        except (errors.HfHubHTTPError, httpx2.HTTPError, OSError, RuntimeError) as error:
            status = _status(error)
            if 400 <= status < 500 and status not in (408, 409, 429):
                raise invalid_config(
                    f"{field}.repo {target.repo}: the hub refuses (HTTP {status})",
                    hint=f"the token in {field}.secretRef (key token) has to be one that may write there; check the name, too",
                ) from error
            last = f"HTTP {status}" if status else str(error).strip().partition("\n")[0][:200] or type(error).__name__
            if number < TRIES:
                say(f"{field}: the hub does not answer ({last}), trying again")
                time.sleep(PAUSES[number - 1])
    raise source_unavailable(
        f"{field}.repo {target.repo}: the hub did not answer in {TRIES} tries: {last}",
        hint="check the network, or set HF_ENDPOINT to another hub in podTemplate.env; what is trained is kept",
    )


def _status(error: BaseException) -> int:
    """HTTP status of what the hub said, 0 if it said nothing."""
    seen: BaseException | None = error
    while seen is not None:
        if (response := getattr(seen, "response", None)) is not None:
            return int(response.status_code)
        seen = seen.__cause__
    return 0
