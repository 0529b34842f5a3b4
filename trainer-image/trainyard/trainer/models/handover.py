"""A model's folder as others can load it: this version of transformers, older ones, servers that read the files themselves.

`save_model` writes weights and configuration, and lets nothing beside them spoil that: settings of a base that the library
itself would not save (`temperature` without `do_sample`, as many publish them) are kept as they came, because whoever serves
the result means what the base's authors meant. `complete` puts beside it what readers look for in other places, and what a base
for images and text needs to be served. `try_to_save` finds before the first step what a save would refuse.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.log import warn

CONFIG, GENERATION, WEIGHTS = "config.json", "generation_config.json", "model.safetensors"
PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
)
"""Of a base that also reads images, sound or film."""
GLOBAL_LAYERS, LOCAL_LAYERS = "full_attention", "sliding_attention"


def save_model(
    model: Any, folder: Path, *, state_dict: dict[str, Any] | None = None, source: Path | None = None
) -> None:
    """Weights, configuration and generation settings. `source` is the base's folder, whose configuration stands in where the
    library refuses to write the model's."""
    generation, dtype = getattr(model, "generation_config", None), model.config.dtype
    try:
        if generation is not None:
            model.generation_config = type(generation)()  # an empty one; the library checks what it writes
        _save_pretrained(model, folder, state_dict, source)
    finally:
        model.config.dtype = dtype  # a save makes a text of it, which other functions of the library cannot read
        if generation is not None:
            model.generation_config = generation
    if generation is not None:
        beside(GENERATION, lambda: generation.to_json_file(folder / GENERATION, use_diff=True))
    complete(folder, source=source)


def save_weights(model: Any, folder: Path, *, state_dict: dict[str, Any]) -> None:
    """For a checkpoint: a whole model as above, an adapter as peft does it."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder, state_dict=state_dict)
    else:
        save_model(model, folder, state_dict=state_dict)


def _save_pretrained(model: Any, folder: Path, state_dict: dict[str, Any] | None, source: Path | None) -> None:
    try:
        model.save_pretrained(folder, state_dict=state_dict)
    except (ValueError, TypeError, AttributeError, KeyError, NotImplementedError) as error:
        if source is None or not (source / CONFIG).is_file():
            raise
        warn(
            f"the library does not save this model ({first_line(error)}): its weights are, with the base's configuration"
        )
        _save_weights(state_dict if state_dict is not None else model.state_dict(), folder / WEIGHTS)
        shutil.copyfile(source / CONFIG, folder / CONFIG)


def _save_weights(weights: dict[str, Any], file: Path) -> None:
    from safetensors.torch import save_file

    kept, seen = {}, set()
    for name, value in weights.items():
        place = (value.data_ptr(), value.shape, value.stride())
        if value.numel() == 0 or place not in seen:
            kept[name] = value.detach().contiguous()
            seen.add(place)
    save_file(kept, file, metadata={"format": "pt"})


def try_to_save(model: Any, uri: str) -> None:
    """Save a shell of the model, with one number in the place of each tensor; tied ones share it, as they do.

    Raises:
        UserError: the library would refuse to save it.
    """
    import torch

    if (quantizer := getattr(model, "hf_quantizer", None)) is not None:
        # Its library makes the tensors anew from the packed ones; a shell of them says nothing.
        if not quantizer.is_serializable():
            raise _not_saved(uri, "its weights are packed in a form that is only read")
        return
    shells: dict[int, Any] = {}
    weights = {}
    for name, value in model.state_dict().items():
        place = value.untyped_storage().data_ptr() or id(value)
        weights[name] = shells.setdefault(place, torch.zeros(1, dtype=value.dtype))
    generation, dtype = getattr(model, "generation_config", None), model.config.dtype
    with tempfile.TemporaryDirectory(prefix="trial-") as place_of_it:
        try:
            if generation is not None:
                model.generation_config = type(generation)()
            # The names and shapes of the model as it is: a shell has nothing that could be taken apart again.
            model.save_pretrained(place_of_it, state_dict=weights, save_original_format=False)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _not_saved(uri, first_line(error)) from error
        finally:
            model.config.dtype = dtype
            if generation is not None:
                model.generation_config = generation


def _not_saved(uri: str, why: str) -> UserError:
    return invalid_config(
        f"{uri} can be loaded and not saved again: {why}",
        hint="use the model as its authors published it, in safetensors and not packed",
    )


def complete(folder: Path, *, source: Path | None = None) -> None:
    """What other readers need, beside what the library has written. A file that cannot be made is told, and left out."""
    beside(CONFIG, lambda: write_for_older_readers(folder / CONFIG))
    for name in PROCESSORS if source is not None else ():
        if source is not None and (source / name).is_file() and not (folder / name).exists():
            beside(name, lambda name=name: shutil.copyfile(source / name, folder / name))  # type: ignore[misc]


def beside(name: str, write: Callable[[], Any]) -> None:
    """Write a file that the weights can do without."""
    try:
        write()
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the volume, not the file
        warn(f"{name} is left as it is beside the weights: {first_line(error)}")


def write_for_older_readers(file: Path) -> None:
    """transformers 5 keeps rotary settings and the type of the weights under new names only. Version 4, and servers that read
    the file themselves, find no base of rotation there and take 10,000 without a word. Both names say the same."""
    values = json.loads(file.read_text())
    for part in (values, *(value for value in values.values() if isinstance(value, dict))):
        if "model_type" in part or part is values:
            _older_names(part)
    file.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def _older_names(values: dict[str, Any]) -> None:
    if isinstance(values.get("dtype"), str):
        values.setdefault("torch_dtype", values["dtype"])
    rope = values.get("rope_parameters")
    if not isinstance(rope, dict):
        return
    if isinstance(by_layer := rope.get(LOCAL_LAYERS), dict) and "rope_theta" in by_layer:
        values.setdefault("rope_local_base_freq", by_layer["rope_theta"])
    whole = rope.get(GLOBAL_LAYERS, rope)
    if not isinstance(whole, dict):
        return
    for name in ("rope_theta", "partial_rotary_factor"):
        if name in whole:
            values.setdefault(name, whole[name])
    if whole.get("rope_type", "default") != "default":
        values.setdefault(
            "rope_scaling", {k: v for k, v in whole.items() if k not in ("rope_theta", "partial_rotary_factor")}
        )
