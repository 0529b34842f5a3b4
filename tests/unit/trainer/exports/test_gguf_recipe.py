"""Which type each tensor gets, against what llama.cpp's quantizer is known to make."""

from __future__ import annotations

import pytest

from trainyard.trainer.exports.gguf_files.recipe import Shape, fitting, types_of

LAYERS = 32
LLAMA = Shape(architecture="llama", layers=LAYERS, heads=32, kv_heads=8)


def tensors(*, hidden: int = 4096, wide: int = 14336, tied: bool = False, layers: int = LAYERS) -> dict[str, list[int]]:
    found = {"token_embd.weight": [hidden, 128256], "output_norm.weight": [hidden]}
    if not tied:
        found["output.weight"] = [hidden, 128256]
    for n in range(layers):
        found |= {f"blk.{n}.attn_{x}.weight": [hidden, hidden] for x in ("q", "k", "v", "output")}
        found |= {f"blk.{n}.ffn_{x}.weight": [hidden, wide] for x in ("gate", "up")}
        found |= {f"blk.{n}.ffn_down.weight": [wide, hidden], f"blk.{n}.attn_norm.weight": [hidden]}
    return found


def test_q4_k_m_gives_more_bits_to_values_and_ways_down_of_the_outer_eighths_and_every_third_between() -> None:
    types = types_of(tensors(), "Q4_K_M", LLAMA)
    # As the file of Llama 3.1 8B that llama-quantize has made: 16 of 32 layers.
    more = [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    for kind in ("attn_v", "ffn_down"):
        assert [n for n in range(LAYERS) if types[f"blk.{n}.{kind}.weight"] == "Q6_K"] == more
        assert sum(types[f"blk.{n}.{kind}.weight"] == "Q4_K" for n in range(LAYERS)) == LAYERS - len(more)
    assert types["blk.0.attn_q.weight"] == types["token_embd.weight"] == "Q4_K"
    assert types["output.weight"] == "Q6_K"


def test_embeddings_that_are_the_output_as_well_get_its_type() -> None:
    assert types_of(tensors(tied=True), "Q4_K_M", LLAMA)["token_embd.weight"] == "Q6_K"
    assert types_of(tensors(tied=True), "Q8_0", LLAMA)["token_embd.weight"] == "Q8_0"


def test_vectors_and_gates_of_experts_stay_as_they_are() -> None:
    types = types_of({**tensors(), "blk.0.ffn_gate_inp.weight": [4096, 8]}, "Q4_K_M", LLAMA)
    assert types["output_norm.weight"] is types["blk.3.attn_norm.weight"] is types["blk.0.ffn_gate_inp.weight"] is None


@pytest.mark.parametrize(
    ("wanted", "row", "got"),
    [
        ("Q4_K", 256, "Q4_K"),
        ("Q4_K", 576, "Q5_0"),
        ("Q5_K", 576, "Q5_1"),
        ("Q6_K", 576, "Q8_0"),
        ("Q8_0", 576, "Q8_0"),
        ("Q4_K", 40, "F16"),
        ("Q8_0", 40, "F16"),
    ],
)
def test_rows_that_are_no_multiple_get_the_type_that_llama_cpp_falls_back_to(wanted: str, row: int, got: str) -> None:
    assert fitting(wanted, row) == got


def test_smollm2_gets_the_mixture_of_its_published_q4_k_m_file() -> None:
    types = types_of(
        tensors(hidden=576, wide=1536, tied=True, layers=30), "Q4_K_M", Shape(architecture="llama", layers=30)
    )
    count = {kind: list(types.values()).count(kind) for kind in ("Q4_K", "Q5_0", "Q6_K", "Q8_0")}
    assert count == {"Q4_K": 16, "Q5_0": 166, "Q6_K": 14, "Q8_0": 15}


def test_the_few_values_of_a_70b_and_of_eight_experts_get_more() -> None:
    many = tensors(hidden=8192, wide=28672, layers=80)
    types = types_of(many, "Q4_K_M", Shape(architecture="llama", layers=80, heads=64, kv_heads=8))
    assert {types[f"blk.{n}.attn_v.weight"] for n in range(80)} == {"Q5_K", "Q6_K"}
    experts = types_of(tensors(), "Q4_K_M", Shape(architecture="llama", layers=LAYERS, experts=8, heads=32, kv_heads=8))
    assert experts["blk.5.attn_k.weight"] == experts["blk.5.attn_v.weight"] == "Q8_0"
    assert experts["blk.5.attn_output.weight"] == "Q5_K"
