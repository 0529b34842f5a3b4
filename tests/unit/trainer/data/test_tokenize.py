"""Tokens, and which of them count for the loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainyard.trainer.data.messages import Record
from trainyard.trainer.data.tokenize import Encoder, Example, Tally
from trainyard.trainer.data.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer
from trainyard.trainer.errors import UserError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    def texts() -> Iterator[str]:
        for number in range(300):
            yield f"The train {number} leaves the yard for station {number % 9}; user and assistant speak of it. äöü"

    return train_tokenizer(texts(), 600, tmp_path_factory.mktemp("tokenizer"))


def encode(tokenizer: Any, records: list[Record], *, max_length: int = 64) -> tuple[list[Example], Tally]:
    tally = Tally()
    encoder = Encoder(tokenizer, max_length=max_length)
    return [example for example, _ in encoder.encode(((record, 1) for record in records), tally)], tally


def counted(tokenizer: Any, example: Example) -> str:
    assert example.counts is not None
    return str(tokenizer.decode([i for i, c in zip(example.ids, example.counts, strict=True) if c]))


def test_the_trained_tokenizer_loses_nothing(tokenizer: Any, tmp_path: Path) -> None:
    text = "  spaces, tabs\t, ümlauts, 漢字, 🚂 and\n\nlines "
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(tmp_path)
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.eos_token == END_OF_TEXT
    assert again.pad_token_id != again.eos_token_id


def test_training_a_tokenizer_twice_gives_the_same(tmp_path: Path) -> None:
    texts = [f"number {n} of {n * 7 % 13}" for n in range(200)]
    train_tokenizer(iter(texts), 400, tmp_path / "a")
    train_tokenizer(iter(texts), 400, tmp_path / "b")
    assert (tmp_path / "a/tokenizer.json").read_bytes() == (tmp_path / "b/tokenizer.json").read_bytes()


def test_text_ends_with_the_end_and_counts_as_a_whole(tokenizer: Any) -> None:
    (example,), _ = encode(tokenizer, [{"text": "The train leaves"}])
    assert example.ids[-1] == tokenizer.eos_token_id
    assert example.counts is None


def test_long_text_is_cut_into_windows_and_nothing_is_lost(tokenizer: Any) -> None:
    text = "The train leaves the yard. " * 40
    examples, tally = encode(tokenizer, [{"text": text}], max_length=16)
    assert max(len(e.ids) for e in examples) == 16
    joined = [token for example in examples for token in example.ids]
    assert tokenizer.decode(joined) == text + END_OF_TEXT
    assert tally.truncated == 0
    assert tally.records == 1
    assert tally.tokens == len(joined)


def test_of_a_prompt_and_its_completion_the_completion_counts(tokenizer: Any) -> None:
    (example,), _ = encode(tokenizer, [{"prompt": "Where does train 7 go?", "completion": " To station 7."}])
    assert counted(tokenizer, example) == " To station 7." + END_OF_TEXT
    assert tokenizer.decode(example.ids) == "Where does train 7 go? To station 7." + END_OF_TEXT


def test_of_a_conversation_what_the_assistant_says_counts_with_the_end_of_its_turn(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Where does train 7 go?"},
        {"role": "assistant", "content": "Station 7."},
        {"role": "user", "content": "And the assistant of train 8? äöü"},
        {"role": "assistant", "content": "Station 8 äöü."},
    ]
    (example,), _ = encode(tokenizer, [{"messages": messages}], max_length=256)
    assert counted(tokenizer, example) == "Station 7.<|im_end|>\nStation 8 äöü.<|im_end|>\n"


def test_of_a_conversation_as_prompt_and_completion_only_the_completion_counts(tokenizer: Any) -> None:
    record = {
        "prompt": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "not this"},
            {"role": "user", "content": "b"},
        ],
        "completion": [{"role": "assistant", "content": "this"}],
    }
    (example,), _ = encode(tokenizer, [record])
    assert counted(tokenizer, example) == "this<|im_end|>\n"


def test_too_long_loses_its_end_and_a_prompt_that_fills_everything_is_dropped(tokenizer: Any) -> None:
    records = [
        {"prompt": "The", "completion": " train" * 40},
        {"prompt": "The train " * 40, "completion": "goes"},
    ]
    examples, tally = encode(tokenizer, records, max_length=16)
    assert len(examples) == 1
    assert len(examples[0].ids) == 16
    assert (tally.truncated, tally.dropped) == (2, {"tooLong": 1})


def test_a_template_that_rewrites_earlier_turns_counts_the_last_one(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    other = load_tokenizer(tmp_path)
    other.chat_template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.role == 'assistant' and not loop.last %}"
        "{{ m.content.split('|')[-1] }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "thinking|one"},
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "thinking|two"},
    ]
    (example,), _ = encode(other, [{"messages": messages}])
    assert counted(other, example) == "thinking|two"


def test_a_template_that_refuses_says_so(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    other = load_tokenizer(tmp_path)
    other.chat_template = "{{ raise_exception('System role not supported') }}"
    records = [{"messages": [{"role": "system", "content": ""}, {"role": "assistant", "content": "a"}]}]
    examples, tally = encode(other, records)
    assert examples == []
    assert tally.refused == {
        0: "the model's chat template refuses a conversation with the roles system, assistant: System role not supported"
    }


def test_no_template_at_all_says_so(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    other = load_tokenizer(tmp_path)
    other.chat_template = None
    with pytest.raises(UserError, match="cannot render a conversation"):
        encode(other, [{"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}])


def test_preparing_does_not_load_torch() -> None:
    """A GPU-less step starts in a second because of this."""
    import subprocess
    import sys

    program = (
        "import sys; sys.path[:0] = %r\n"
        "import trainyard.trainer.data.prepare, trainyard.trainer.__main__\n"
        "from transformers import PreTrainedTokenizerFast\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program % sys.path], check=False).returncode == 0
