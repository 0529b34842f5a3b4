"""GGUF files of a real model: converted, loaded by llama.cpp, and asked the same as the model itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.small_llama import small_llama
from trainyard.trainer.errors import UserError
from trainyard.trainer.exports.gguf_files.convert import convert
from trainyard.trainer.exports.gguf_files.quantize import quantize, value
from trainyard.trainer.exports.gguf_files.suitable import known_by_hash
from trainyard.trainer.exports.handover import llamacpp
from trainyard.trainer.exports.handover.checked import check_gguf, questions_of
from trainyard.trainer.exports.handover.compare import Bar, compare
from trainyard.trainer.exports.handover.metadata import END, TEMPLATE, check_metadata
from trainyard.trainer.exports.handover.network import at_f16, load
from trainyard.trainer.exports.handover.questions import questions
from trainyard.trainer.exports.handover.reference import Reference, answers_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FIELD = "spec.exports[local].gguf"
EXACT = Bar("local: f16.gguf", exact=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its end is named by a list in config.json alone, with which a file would be left without one."""
    folder = small_llama(tmp_path_factory.mktemp("model"), eos_as_list=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "eos_token"}))
    return folder


@pytest.fixture(scope="module")
def full(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its f16 file."""
    path = tmp_path_factory.mktemp("gguf") / "f16.gguf"
    convert(model, path, name="tiny", field=FIELD)
    return path


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return answers_of(model, questions(Path("nowhere"), chat=True))


def planted(source: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The file with other metadata."""
    reader = gguf.GGUFReader(source)
    fields = {
        f.name: f for f in reader.fields.values() if not f.name.startswith("GGUF.") and f.name != "general.architecture"
    }
    values = {name: field.contents() for name, field in fields.items()}
    change(values)
    writer = gguf.GGUFWriter(target, "llama")
    for name, found in values.items():
        kinds = fields[name].types
        writer.add_key_value(
            name, found, kinds[0], sub_type=kinds[-1] if kinds[0] == gguf.GGUFValueType.ARRAY else None
        )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def fault(file: Path, reference: Reference, *, exact: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        check_gguf(file, reference, field=FIELD, exact=exact)
    return str(caught.value)


def test_the_f16_file_answers_as_transformers_to_the_token(full: Path, reference: Reference) -> None:
    agreement = check_gguf(full, reference, field=FIELD, exact=True)
    assert agreement.tokens >= 8 * 20
    assert agreement.share == 1.0


def test_a_penalty_that_the_authors_wish_for_is_no_part_of_the_comparison(
    model: Path, full: Path, tmp_path: Path
) -> None:
    """Published settings of generation often hold one; llama.cpp is not asked with it."""
    folder = shutil.copytree(model, tmp_path / "m")
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 1.3}))
    reference = answers_of(folder, questions(Path("nowhere"), chat=True))
    assert check_gguf(full, reference, field=FIELD, exact=True).share == 1.0


def test_a_model_of_few_positions_is_asked_within_them(model: Path, tmp_path: Path) -> None:
    """At their end llama.cpp stops, where transformers goes on."""
    folder = shutil.copytree(model, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 48}))
    file = tmp_path / "m-f16.gguf"
    convert(folder, file, name="m", field=FIELD)
    asked = questions_of(folder, Path("nowhere"))
    assert 1 <= len(asked) < 8, "some are too long for it"
    reference = answers_of(folder, asked)
    assert max(len(one.ids) for one in reference.answers) == 24
    assert check_gguf(file, reference, field=FIELD, exact=True).share == 1.0

    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    with pytest.raises(UserError, match="no prompt fits the 8 positions of the model"):
        questions_of(folder, Path("nowhere"))


def test_it_says_who_it_is_how_it_cuts_text_and_what_ends_an_answer(
    full: Path, model: Path, reference: Reference
) -> None:
    reader = gguf.GGUFReader(full)
    assert value(reader, "general.name") == "tiny"
    assert value(reader, "tokenizer.ggml.pre") == "gpt-2"
    assert value(reader, END) in reference.ends
    assert not known_by_hash(model)


@pytest.mark.parametrize("quantization", ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"])
def test_smaller_files_render_and_end_as_the_model(
    full: Path, reference: Reference, tmp_path: Path, quantization: str
) -> None:
    file = tmp_path / f"m-{quantization}.gguf"
    quantize(full, file, quantization, threads=1)
    agreement = check_gguf(file, reference, field=FIELD, exact=False)
    assert agreement.questions == 8
    assert file.stat().st_size < full.stat().st_size


def test_a_planted_template_is_found_by_what_it_renders_and_by_what_the_file_says(
    full: Path, reference: Reference, tmp_path: Path
) -> None:
    def change(values: dict[str, Any]) -> None:
        values[TEMPLATE] = values[TEMPLATE].replace("<|im_start|>assistant", "<|im_start|>model")

    file = planted(full, tmp_path / "t.gguf", change)
    assert "holds the chat template" in fault(file, reference, exact=False)
    with pytest.raises(UserError, match=r"renders the chat as '.*' instead of '"):
        compare(reference, llamacpp.ask(file, reference, threads=1), bar=EXACT)


def test_a_file_without_an_end_is_found(full: Path, reference: Reference, tmp_path: Path) -> None:
    file = planted(full, tmp_path / "e.gguf", lambda values: values.pop(END))
    assert "names no token that ends an answer" in fault(file, reference, exact=False)
    other = planted(full, tmp_path / "o.gguf", lambda values: values.update({END: 17}))
    assert "ends an answer with token 17" in fault(other, reference, exact=False)


def test_a_wrong_rope_value_is_found_by_what_it_answers(full: Path, reference: Reference, tmp_path: Path) -> None:
    file = planted(full, tmp_path / "r.gguf", lambda values: values.update({"llama.rope.freq_base": 10000.0}))
    check_metadata(file, reference, name="r.gguf")
    message = fault(file, reference)
    assert "answers '" in message
    assert "' instead of '" in message


def test_what_rounding_can_turn_round_is_measured_on_the_model_itself(reference: Reference, model: Path) -> None:
    """A thousandth of the numbers makes all logits close, by any fixed distance; here as few are undecided as before."""
    sure = [len(found) for one in reference.answers for found in reference.rounding.undecided(one)]
    assert sorted(sure)[len(sure) // 2] == 1, "most of the time one token is the only one"
    network = load(model)
    pairs = [
        at_f16(load(model))(input_ids=ids).logits[0] - network(input_ids=ids).logits[0] for ids in prompts(reference)
    ]
    moved = max(float(found.detach().abs().max()) for found in pairs)
    assert 0 < moved < 0.05


def prompts(reference: Reference) -> list[Any]:
    return [torch.tensor([one.prompt_ids]) for one in reference.answers[:2]]


@pytest.mark.parametrize("scale", [1.0, 1e-3, 0.0], ids=["sure", "barely trained", "knows nothing"])
def test_a_model_that_knows_little_is_handed_over_all_the_same(model: Path, tmp_path: Path, scale: float) -> None:
    """With a head scaled down, all tokens are within a fixed distance; with one of zeros, no token is likelier than another."""
    folder = shutil.copytree(model, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["lm_head.weight"] * scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    file = tmp_path / "m-f16.gguf"
    convert(folder, file, name="m", field=FIELD)
    reference = answers_of(folder, questions(Path("nowhere"), chat=True))
    check_gguf(file, reference, field=FIELD, exact=True)
    if scale:
        wrong = planted(file, tmp_path / "r.gguf", lambda values: values.update({"llama.rope.freq_base": 10000.0}))
        assert "answers '" in fault(wrong, reference)


def test_a_tokenizer_that_cuts_in_a_way_without_a_name_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(model, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="has no name for how this tokenizer cuts text"):
        convert(folder, tmp_path / "odd.gguf", name="odd", field=FIELD)
    assert not (tmp_path / "odd.gguf").exists()


def test_a_class_of_models_that_the_converter_does_not_know_is_refused(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["StrangeForCausalLM"]}))
    with pytest.raises(UserError, match="no rules for a model of class StrangeForCausalLM"):
        convert(folder, tmp_path / "strange.gguf", name="strange", field=FIELD)
