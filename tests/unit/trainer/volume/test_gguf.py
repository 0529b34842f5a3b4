"""What can be known of a GGUF file before it is unpacked."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.trainer.volume.gguf_files import gguf, small, write
from trainyard.api.exitcodes import ExitCode
from trainyard.trainer.errors import UserError
from trainyard.trainer.volume.gguf import check_gguf
from trainyard.trainer.volume.gguf_header import read_header

URI = "pvc://m/x.gguf"


def refused(tmp_path: Path, content: bytes) -> str:
    with pytest.raises(UserError) as caught:
        check_gguf(write(tmp_path / "x.gguf", content), URI)
    assert caught.value.exit_code == ExitCode.INVALID_CONFIG
    return str(caught.value)


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    header = check_gguf(write(tmp_path / "x.gguf", small(**{"tokenizer.ggml.tokens": ["t"] * 100})), URI)
    assert header.architecture == "llama"
    assert header.parameters == 64
    assert header.fields["tokenizer.ggml.tokens"] == 100, "of a long list the length is kept"
    assert header.tensors[0].name == "token_embd.weight"


def test_a_file_that_is_something_else(tmp_path: Path) -> None:
    assert refused(tmp_path, b"PK\x03\x04") == (
        "pvc://m/x.gguf is no GGUF file: it does not begin with GGUF (copy the folder again, as a whole)"
    )
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\n"
    assert refused(tmp_path, pointer).startswith(
        "pvc://m/x.gguf is a pointer of git-lfs and not the file (run git lfs pull"
    )


def test_a_file_that_is_cut_off_at_any_place(tmp_path: Path) -> None:
    whole = small()
    for left in (5, 12, 30, 60, 120, len(whole) - 1):
        assert "cut off" in refused(tmp_path, whole[:left])
    assert f"is cut off: it has {len(whole) - 100} of {len(whole)} bytes" in refused(tmp_path, whole[:-100])


def test_counts_that_cannot_be_are_not_followed(tmp_path: Path) -> None:
    huge = struct.pack("<Q", 1 << 60)
    assert "a count in it is wrong" in refused(tmp_path, b"GGUF" + struct.pack("<I", 3) + huge + huge)
    listed = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a" + struct.pack("<II", 9, 8) + huge
    assert "a count in it is wrong" in refused(tmp_path, listed)


def test_the_other_byte_order(tmp_path: Path) -> None:
    assert "is written for the other byte order" in refused(tmp_path, b"GGUF" + struct.pack(">IQQ", 3, 1, 1))


def test_a_piece_of_a_model(tmp_path: Path) -> None:
    assert refused(tmp_path, small(**{"split.count": 3})).startswith(
        "pvc://m/x.gguf is one of 3 pieces of a model (put them together (llama-gguf-split --merge"
    )


def test_a_projector_is_no_language_model(tmp_path: Path) -> None:
    assert "holds no language model" in refused(tmp_path, small(**{"general.type": "mmproj"}))
    assert "holds no language model" in refused(tmp_path, small(**{"general.architecture": "clip"}))


def test_a_kind_that_cannot_be_unpacked(tmp_path: Path) -> None:
    odd = gguf({"general.architecture": "llama"}, {"blk.0.x": ((32,), 99, b"\0" * 32)})
    assert "tensor blk.0.x is packed in kind 99, which cannot be unpacked" in refused(tmp_path, odd)


def test_what_would_be_lost_in_silence_is_refused(tmp_path: Path) -> None:
    scaled = small(**{"llama.rope.scaling.type": "yarn"})
    assert "scales positions (llama.rope.scaling.type yarn), which is lost" in refused(tmp_path, scaled)
    assert "splits text the way 'nobody' (tokenizer.ggml.pre)" in refused(
        tmp_path, small(**{"tokenizer.ggml.pre": "nobody"})
    )
    factors = gguf({"general.architecture": "phi3"}, {"rope_factors_long.weight": ((8,), 0, b"\0" * 32)})
    assert "scales positions (rope_factors)" in refused(tmp_path, factors)


@pytest.mark.parametrize("size", ["llama.block_count", "llama.embedding_length"])
def test_a_file_that_does_not_say_how_large_its_model_is(size: str, tmp_path: Path) -> None:
    assert f"{size} is missing" in refused(tmp_path, small(**{size: 0}))


@settings(max_examples=300)
@given(content=st.binary(max_size=200), cut=st.integers(0, 300))
def test_no_bytes_end_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int) -> None:
    file = tmp_path_factory.mktemp("x") / "x.gguf"
    file.write_bytes(small()[:cut] + content)
    with suppress(UserError):
        read_header(file, URI)
