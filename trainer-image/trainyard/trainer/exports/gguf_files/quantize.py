"""From an f16 GGUF to one of fewer bits, tensor by tensor and in blocks of rows, so that no more than a block is in memory.

`gguf` reads (as a memory map) and writes, `libgguf` encodes: gguf itself can only decode the K types. All metadata is carried
over but the file type.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from trainyard.trainer.exports.gguf_files.recipe import FILE_TYPE, Shape, types_of

BLOCK_OF_WEIGHTS = 1 << 22
"""Weights that are encoded at once, by each thread: 16 MiB as f32."""
ARCHITECTURE = "general.architecture"
OWN = ("general.file_type", "general.quantization_version", ARCHITECTURE)
QUANTIZATION_VERSION = 2


def quantize(source: Path, target: Path, quantization: str, *, threads: int) -> dict[str, str]:
    """Write `target`. Returns how many tensors have got which type, for the log, e.g. {"Q4_K": "120"}."""
    import gguf

    reader = gguf.GGUFReader(source)
    architecture = str(value(reader, ARCHITECTURE))
    wanted = types_of({t.name: [int(n) for n in t.shape] for t in reader.tensors}, quantization, shape_of(reader))
    writer = gguf.GGUFWriter(target, architecture)
    _copy_metadata(reader, writer)
    writer.add_file_type(FILE_TYPE[quantization])
    writer.add_quantization_version(QUANTIZATION_VERSION)
    types = {t.name: _type(wanted[t.name], t.tensor_type) for t in reader.tensors}
    for tensor in reader.tensors:
        kind = types[tensor.name]
        rows = tuple(int(n) for n in reversed(tensor.shape))
        size = gguf.quant_shape_to_byte_shape(rows, kind)
        if kind == tensor.tensor_type:
            writer.add_tensor_info(
                tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, raw_dtype=kind
            )
        else:
            total = int(np.prod(size))
            writer.add_tensor_info(tensor.name, size, np.dtype(np.uint8), total, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    with ThreadPoolExecutor(threads) as pool:
        for tensor in reader.tensors:
            kind = types[tensor.name]
            data = tensor.data if kind == tensor.tensor_type else _encoded(tensor, kind, pool)
            writer.write_tensor_data(data)
    writer.close()
    names = [types[t.name].name for t in reader.tensors]
    return {name: str(names.count(name)) for name in sorted(set(names))}


def value(reader: Any, key: str) -> Any:
    """One entry of the metadata, None where it is not there."""
    field = reader.get_field(key)
    return None if field is None else field.contents()


def shape_of(reader: Any) -> Shape:
    """What the recipe looks at, from a file's metadata."""
    architecture = str(value(reader, ARCHITECTURE))

    def number(key: str, default: int) -> int:
        found = value(reader, f"{architecture}.{key}")
        return max(found) if isinstance(found, list) else default if found is None else int(found)

    heads = number("attention.head_count", 1)
    return Shape(
        architecture=architecture,
        layers=number("block_count", 0),
        experts=number("expert_count", 0),
        heads=heads,
        kv_heads=number("attention.head_count_kv", heads),
    )


def _copy_metadata(reader: Any, writer: Any) -> None:
    import gguf

    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in OWN:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)


def _type(wanted: str | None, now: Any) -> Any:
    import gguf

    return now if wanted is None else gguf.GGMLQuantizationType[wanted]


def _encoded(tensor: Any, kind: Any, pool: ThreadPoolExecutor) -> Any:
    """The tensor in its new type; encoding lets go of the interpreter, so threads do it side by side."""
    import gguf
    import libgguf

    row = int(tensor.shape[0])
    rows = gguf.dequantize(tensor.data, tensor.tensor_type) if tensor.tensor_type not in _PLAIN else tensor.data
    rows = rows.reshape(-1, row)
    step = max(1, BLOCK_OF_WEIGHTS // row)

    def encode(start: int) -> Any:
        block = np.ascontiguousarray(rows[start : start + step], dtype=np.float32)
        if kind.name == "F16":
            return block.astype(np.float16).view(np.uint8)
        return libgguf.quantize_rows(block, libgguf.GGMLQuantizationType[kind.name])

    return np.concatenate([np.atleast_2d(block) for block in pool.map(encode, range(0, len(rows), step))])


_PLAIN = (0, 1)
"""Numbers of the types F32 and F16, whose data is numbers already."""
