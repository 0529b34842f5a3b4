"""Where a model or tokenizer lies, as a local folder: downloaded from a hub, on a mounted volume, or in the image. What comes
from elsewhere, or is no folder, is seen to in `bases.py`.

A hub is asked for exactly the files that are used (weights as safetensors, configuration, tokenizer); nothing that would
have to be unpickled or executed. What it answers is kept in the Hugging Face cache, which is a shared volume if the run has
one, so that a second run and a restart download nothing, and an unreachable hub does not matter then.
"""

from __future__ import annotations

import time
from pathlib import Path

from trainyard.api.addresses import keep_secret
from trainyard.api.base import SecretRef
from trainyard.trainer.context import RunContext
from trainyard.trainer.errors import UserError, first_line, invalid_config, invalid_data, source_unavailable
from trainyard.trainer.log import say
from trainyard.trainer.volume.claims import own_folder_of
from trainyard.trainer.volume.commit import read_committed
from trainyard.trainer.volume.weights import INDEX

TOKENIZER_FILES = [
    "tokenizer*",
    "*.model",
    "vocab*",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*config.json",
    "README.md",
]
MODEL_FILES = [*TOKENIZER_FILES, "*.safetensors", "*.safetensors.index.json"]
TRIES = 3
PAUSES = (1.0, 3.0)


def local_folder(uri: str, *, context: RunContext, secret_ref: SecretRef | None, weights: bool) -> Path:
    """The folder behind `hf://`, `pvc://` or `file://`; with `weights=False` only what a tokenizer needs.

    Raises:
        UserError: it does not exist, access is refused, or the hub does not answer.
    """
    scheme, _, rest = uri.partition("://")
    if scheme != "hf":
        return own_folder_of(uri, context.volumes_dir, told=uri, invalid=invalid_config)
    repository, _, revision = rest.partition("@")
    wanted = MODEL_FILES if weights else TOKENIZER_FILES
    token = hub_token(context.secrets_dir, secret_ref, field="spec.model.secretRef")
    return from_hub(repository, revision or None, uri, token, wanted=wanted, field="spec.model.secretRef")


def hub_listing(uri: str, folder: Path, *, context: RunContext, secret_ref: SecretRef | None) -> set[str] | None:
    """Names of all files of a model on a hub, of which `folder` is a snapshot; None where the hub does not tell. The index of the
    weights is fetched, if there is one."""
    import huggingface_hub

    repository, revision = uri.removeprefix("hf://").partition("@")[0], revision_of(folder)
    token = hub_token(context.secrets_dir, secret_ref, field="spec.model.secretRef")
    try:
        about = huggingface_hub.HfApi(token=token or False).model_info(repository, revision=revision, timeout=10)
        names = {file.rfilename for file in about.siblings or ()}
        if INDEX in names:
            huggingface_hub.snapshot_download(
                repository, revision=revision, token=token or False, allow_patterns=[INDEX]
            )
    except (
        Exception
    ):  # a question beside the way: whatever the hub or its client says, the weights will be asked for again
        return None
    return names or None


def revision_of(folder: Path) -> str | None:
    """The commit a hub model was downloaded at, or what else tells which one it is; None for other folders."""
    if folder.parent.name == "snapshots":
        return folder.name
    committed = read_committed(folder)
    return None if committed is None else committed.manifest.get("revision")


def from_hub(
    repository: str,
    revision: str | None,
    uri: str,
    token: str | None,
    *,
    wanted: list[str],
    field: str,
    kind: str = "model",
) -> Path:
    """A snapshot with the files that match `wanted`; `kind` is model or dataset, `field` holds the token's Secret.

    Raises:
        UserError: it does not exist, access is refused, or the hub does not answer.
    """
    import huggingface_hub
    from huggingface_hub import errors

    started = time.monotonic()
    for number in range(1, TRIES + 1):
        try:
            folder = huggingface_hub.snapshot_download(
                repository, repo_type=kind, revision=revision, token=token or False, allow_patterns=wanted
            )
            say(f"{uri}: here after {time.monotonic() - started:.1f} s")
            return Path(folder)
        except errors.GatedRepoError as error:
            raise invalid_data(
                f"{uri} is gated and access is refused",
                hint=f"accept its licence on the hub, and put a token of that account into {field} (key token)",
            ) from error
        except errors.RevisionNotFoundError as error:
            raise invalid_data(f"{uri}: there is no such revision", hint="check the part after @") from error
        except errors.RepositoryNotFoundError as error:
            advice = "check the name" if token else f"check the name; a private {kind} needs {field}"
            raise invalid_data(f"{uri}: there is no such {kind}, or it is private", hint=advice) from error
        except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            if status in (401, 403):
                raise invalid_data(
                    f"{uri}: access is refused (HTTP {status})", hint=f"check the token in {field}"
                ) from error
            if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
                raise
            cached = _from_cache(repository, revision, wanted, kind)
            if cached is not None:
                say(f"{uri}: the hub does not answer, the copy in the cache is used")
                return cached
            if number == TRIES:
                raise _unavailable(uri, error) from error
            say(f"{uri}: the hub does not answer, trying again")
            time.sleep(PAUSES[number - 1])
    raise AssertionError("unreachable")


def _from_cache(repository: str, revision: str | None, wanted: list[str], kind: str) -> Path | None:
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return Path(
            huggingface_hub.snapshot_download(
                repository, repo_type=kind, revision=revision, allow_patterns=wanted, local_files_only=True
            )
        )
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError):
        return None


def _unavailable(uri: str, error: BaseException) -> UserError:
    return source_unavailable(
        f"{uri}: the hub did not answer in {TRIES} tries: {first_line(error, 200)}",
        hint="check the network, set HF_ENDPOINT to a mirror in podTemplate.env, or copy the files to a volume and use "
        "pvc://claim/path",
    )


def hub_token(secrets: Path, secret_ref: SecretRef | None, *, field: str) -> str | None:
    """The access token in the Secret that `field` names; None without one.

    Raises:
        UserError: the Secret has none.
    """
    if secret_ref is None:
        return None
    folder = secrets / secret_ref.name
    for key in ("token", "HF_TOKEN"):
        if (folder / key).is_file():
            token = (folder / key).read_text().strip()
            keep_secret({"token": token})
            return token
    raise invalid_config(
        f"{field}: secret {secret_ref.name} has neither the key token nor HF_TOKEN at {folder}",
        hint="add the hub's access token under the key token",
    )
