"""What Ollama tells of tokens that are halves of characters."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from trainyard.trainer.data.tokenizer import train_tokenizer
from trainyard.trainer.exports.ollama_api.heard import Ear


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Over bytes, with letters that it has never seen."""
    return train_tokenizer(iter(["kubectl get pods"] * 20), 300, tmp_path_factory.mktemp("t") / "made")


def ids(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_whole_characters_are_heard_as_they_are(tokenizer: Any) -> None:
    for text in ("kubectl get pods", "ein Zug fährt", "列车 🚆 fährt", "<|im_end|> and"):
        assert Ear(tokenizer)(ids(tokenizer, text)) == text


def test_what_is_no_character_goes_with_all_that_was_kept_back_behind_it(tokenizer: Any) -> None:
    first, *rest = ids(tokenizer, "é")
    assert len(rest) == 1, "two tokens"
    ear = Ear(tokenizer)
    assert ear([*ids(tokenizer, "get"), first]) == "get"
    assert ear([*ids(tokenizer, "get"), first, *ids(tokenizer, " pods")]).startswith("get")
    assert ear([first, ids(tokenizer, "k")[0], *ids(tokenizer, " pods")]) == " pods"
    assert ear([rest[0], *ids(tokenizer, "get")]) == "get"


def test_pieces_with_scores_write_blanks_and_bytes_in_their_own_way() -> None:
    class Pieces:
        is_fast = False
        added_tokens_decoder: ClassVar[dict[int, str]] = {0: "</s>"}
        words = ("</s>", "▁get", "▁pods", "<0xC3>", "<0xA9>")

        def convert_ids_to_tokens(self, number: int) -> str:
            return self.words[number]

    assert Ear(Pieces())([1, 2, 3, 4, 0]) == " get podsé</s>"


def test_a_real_vocabulary_with_scores(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁get", -1.0), ("▁pods", -1.0)], unk_id=0, byte_fallback=False))
    made.decoder = decoders.Metaspace()
    assert Ear(PreTrainedTokenizerFast(tokenizer_object=made))([1, 2]) == " get pods"
