"""A GGUF file as a base: unpacked once into a folder of safetensors, which everything else then reads.

    header: is it whole, of one piece, of kinds that can be unpacked?  ->  weights, configuration, tokenizer  ->  folder

transformers does the unpacking, and leaves out what it does not know: scaled positions, a way to split text, tensors it has no
name for. A model that misses one of these trains without an error and is another model, so each is looked for here, put back
where that can be done exactly, and refused where not.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.log import say
from trainyard.trainer.machine.device import available_host_memory
from trainyard.trainer.machine.imports import quick_imports
from trainyard.trainer.volume.gguf_header import Header, read_header
from trainyard.trainer.volume.weights import COPY

WAY_OUT = "use the model's folder of safetensors instead (hf://org/name, or a folder on a claim)"
F32, F16, BF16 = 0, 1, 30
KINDS = {
    0: 4 * 32,
    1: 2 * 32,
    30: 2 * 32,
    2: 18,
    3: 20,
    6: 22,
    7: 24,
    8: 34,
    20: 18,
    39: 17,
    10: 84 / 8,
    11: 110 / 8,
    12: 144 / 8,
    13: 176 / 8,
    14: 210 / 8,
    16: 66 / 8,
    17: 74 / 8,
    18: 98 / 8,
    19: 50 / 8,
    21: 110 / 8,
    22: 82 / 8,
    23: 136 / 8,
    29: 56 / 8,
    34: 54 / 8,
    35: 66 / 8,
    40: 18,
}
"""Kinds of tensors that can be unpacked, with the bytes of 32 values."""
AS_GPT2 = frozenset(("gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "jina-es", "jina-de"))
"""Ways to split text that are GPT-2's, as llama.cpp names them."""
DIGITS_APART = frozenset(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"))
"""The same, with each digit by itself."""
PIECE = "split.count"
FACTORS = "rope_freqs.weight"
MEMORY = 1.3
"""Of what the unpacked weights take, while they are unpacked."""
LIBRARIES = 700_000_000
"""Bytes that torch and transformers take."""


def digest_of(file: Path) -> str:
    """SHA-256 of its bytes."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_gguf(file: Path, uri: str) -> Header:
    """Look at the header.

    Raises:
        UserError: it is damaged, cut off, one piece of several, or of a kind that cannot be unpacked.
    """
    header = read_header(file, uri)
    fields, name = header.fields, header.architecture
    if int(fields.get(PIECE, 1) or 1) > 1:
        raise invalid_config(
            f"{uri} is one of {fields[PIECE]} pieces of a model",
            hint="put them together (llama-gguf-split --merge first.gguf whole.gguf), and name the whole file",
        )
    if fields.get("general.type", "model") != "model" or not name or name == "clip":
        raise invalid_config(
            f"{uri} holds no language model (its general.type is {fields.get('general.type')!r})", hint=WAY_OUT
        )
    if unknown := sorted({tensor.kind for tensor in header.tensors} - KINDS.keys()):
        one = next(tensor for tensor in header.tensors if tensor.kind == unknown[0])
        raise invalid_config(
            f"{uri}: tensor {one.name} is packed in kind {one.kind}, which cannot be unpacked", hint=WAY_OUT
        )
    alignment = int(fields.get("general.alignment", 32) or 32)
    begin = -(-header.end // alignment) * alignment
    wanted = begin + max((t.begin + int(math.prod(t.shape) * KINDS[t.kind] / 32) for t in header.tensors), default=0)
    if (size := file.stat().st_size) < wanted:
        raise invalid_config(f"{uri} is cut off: it has {size} of {wanted} bytes", hint=COPY)
    if not header.tensors:
        raise invalid_config(f"{uri} has a vocabulary and no weights", hint=WAY_OUT)
    _check_positions(header, uri)
    _check_splitting(header, uri)
    _check_sizes(header, uri)
    return header


def unpack(file: Path, folder: Path, uri: str) -> Mapping[str, Any]:
    """Fill `folder`; returns what the file says of itself.

    Raises:
        UserError: it cannot be read, or there is too little memory to unpack it.
    """
    header = check_gguf(file, uri)
    kinds = {tensor.kind for tensor in header.tensors}
    narrow = kinds != {F32}
    needed = header.parameters * (2 if narrow else 4) * MEMORY + LIBRARIES
    free = available_host_memory()
    if 0 < free < needed:
        raise invalid_config(
            f"unpacking {uri} takes about {needed / 1e9:.1f} GB of memory, and this step has {free / 1e9:.1f} GB left",
            hint=f"raise spec.stepResources.prepare.limits.memory, or {WAY_OUT}",
        )
    say(f"unpacking {uri}: {header.architecture}, {header.parameters:,} parameters")
    try:
        with quick_imports(), tempfile.TemporaryDirectory(prefix="gguf-") as place:
            # Alone in a folder: what lies beside the file is none of the model's.
            alone = Path(place) / "model.gguf"
            alone.symlink_to(file.absolute())
            _unpack(alone, folder, header, plain=kinds <= {F32, F16, BF16})
    except (UserError, MemoryError):
        raise
    except Exception as error:  # the library raises bare exceptions for what it does not know
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise invalid_config(f"{uri} cannot be unpacked: {first_line(error, 300)}", hint=WAY_OUT) from error
    told = {"architecture": header.architecture, "license": header.fields.get("general.license")}
    return {name: str(value) for name, value in told.items() if value}


def _unpack(file: Path, folder: Path, header: Header, *, plain: bool) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging

    kinds = {tensor.kind for tensor in header.tensors}
    dtype = torch.bfloat16 if not plain or BF16 in kinds else torch.float16 if F16 in kinds else torch.float32
    logging.disable_progress_bar()
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors  # it has a bar of its own
    place = {"gguf_file": file.name, "local_files_only": True}
    model, loading = AutoModelForCausalLM.from_pretrained(
        file.parent, dtype=dtype, quantization_config=GgufConfig(dequantize=True), output_loading_info=True, **place
    )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ValueError(f"it has no tensor for {', '.join(missing[:3])}")
    # Plain weights from here on; the library would refuse to save what it took for packed.
    model.hf_quantizer = None
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.__dict__.pop("_model_name_or_path", None)
    if (scaling := _llama3_scaling(file, header, model.config)) is not None:
        model.config.rope_parameters = {**model.config.rope_parameters, **scaling}
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **place)
    _split_as_learned(tokenizer, header)
    tokenizer.save_pretrained(folder)


def _check_positions(header: Header, uri: str) -> None:
    """Positions are scaled by numbers that the library leaves out."""
    prefix = header.architecture
    kind = header.fields.get(f"{prefix}.rope.scaling.type", "none")
    if kind not in ("none", "") and prefix not in ("gpt-oss", "gpt_oss"):
        raise invalid_config(
            f"{uri} scales positions ({prefix}.rope.scaling.type {kind}), which is lost when it is unpacked",
            hint=WAY_OUT,
        )
    if any(tensor.name.startswith("rope_factors") for tensor in header.tensors):
        raise invalid_config(f"{uri} scales positions (rope_factors), which is lost when it is unpacked", hint=WAY_OUT)


def _check_sizes(header: Header, uri: str) -> None:
    """What the file does not say, the library takes from the defaults of the architecture, which are those of a large model."""
    for size in ("block_count", "embedding_length"):
        if not header.fields.get(name := f"{header.architecture}.{size}"):
            raise invalid_config(f"{uri} does not say how large its model is: {name} is missing", hint=WAY_OUT)


def _check_splitting(header: Header, uri: str) -> None:
    """How text is split before it is encoded has a name in the file; another way gives other tokens."""
    fields = header.fields
    if fields.get("tokenizer.ggml.model") != "gpt2":
        return
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    name = fields.get("tokenizer.ggml.pre")
    if name is not None and name not in {*GGUF_PRE_TOKENIZER_SPLITS, *AS_GPT2, *DIGITS_APART}:
        raise invalid_config(
            f"{uri}: its tokenizer splits text the way {name!r} (tokenizer.ggml.pre), which is not known here",
            hint=WAY_OUT,
        )


def _split_as_learned(tokenizer: Any, header: Header) -> None:
    if header.fields.get("tokenizer.ggml.pre") not in DIGITS_APART:
        return
    from tokenizers import pre_tokenizers

    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])


def _llama3_scaling(file: Path, header: Header, config: Any) -> dict[str, Any] | None:
    """Llama 3.1's scaled positions, which the file holds as one factor for each frequency.

    Raises:
        ValueError: the factors are others.
    """
    if all(tensor.name != FACTORS for tensor in header.tensors):
        return None
    from gguf import GGUFReader

    found = next(t.data for t in GGUFReader(file).tensors if t.name == FACTORS)
    theta, size = config.rope_parameters["rope_theta"], len(found) * 2
    factor, low, high, before = float(max(found)), 1.0, 4.0, 8192
    for index, given in enumerate(found):
        wave = 2 * math.pi * theta ** (2 * index / size)
        smooth = (before / wave - low) / (high - low)
        wanted = (
            1.0 if wave < before / high else factor if wave > before / low else 1 / ((1 - smooth) / factor + smooth)
        )
        if not math.isclose(given, wanted, rel_tol=1e-3):
            raise ValueError(f"it scales positions ({FACTORS}) in a way that is not Llama 3.1's")
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": before,
    }
