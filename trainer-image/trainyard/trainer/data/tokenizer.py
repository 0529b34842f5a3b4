"""The run's tokenizer: the model's own, somebody else's, or one trained on the run's data.

It is copied into the prepared data, so that every later step (and the final model) uses exactly the one the tokens were
made with. Only the `tokenizers` half of transformers is loaded here; torch is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainyard.trainer.data.tokenizer_files import write_for_others
from trainyard.trainer.errors import UserError, first_line, invalid_config
from trainyard.trainer.volume.weights import POINTER

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|pad|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = [END_OF_TEXT, PADDING, TURN_START, TURN_END]
TRAINING_TEXT_LIMIT = 64 * 1024 * 1024
"""Characters a tokenizer is trained on. More text hardly changes the merges, and takes minutes."""

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] or '' }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}{{ '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML, for models that are trained from random weights and so have no template of their own."""


def train_tokenizer(texts: Iterator[str], vocab_size: int, folder: Path) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer and save it to `folder`.

    Any text can be encoded and decoded without loss, since the alphabet is the 256 bytes. Small data may not hold enough
    repetition for `vocab_size` entries; the vocabulary is then smaller.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_up_to(texts, TRAINING_TEXT_LIMIT), trainer=trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=PADDING, clean_up_tokenization_spaces=False
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)
    write_for_others(folder)
    return wrapped


def copy_tokenizer(source: Path, folder: Path, *, uri: str) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a model folder and save it to `folder`.

    Raises:
        UserError: there is none in it, or it cannot end a text.
    """
    from transformers import PreTrainedTokenizerFast

    if (source / "tokenizer.json").exists():
        try:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(source, local_files_only=True)
        except Exception as error:  # the library raises bare exceptions for what is wrong in a file
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise _unreadable(source, uri, error) from error
    else:
        # Models that ship only a SentencePiece file have to be converted, which takes the class of the model.
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        except Exception as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise invalid_config(
                f"{uri} has no tokenizer that can be loaded: {first_line(error)}",
                hint="the folder needs tokenizer.json; save it with tokenizer.save_pretrained(folder)",
            ) from error
        if not getattr(tokenizer, "is_fast", False):
            raise invalid_config(
                f"{uri} has only a slow tokenizer ({type(tokenizer).__name__})",
                hint="convert it once and save tokenizer.json beside the weights",
            )
    if tokenizer.eos_token_id is None:
        raise invalid_config(
            f"the tokenizer of {uri} has no end-of-text token",
            hint="set eos_token in its tokenizer_config.json, or the model never learns to stop",
        )
    tokenizer.save_pretrained(folder)
    write_for_others(folder, source)
    return tokenizer


def _unreadable(source: Path, uri: str, error: Exception) -> UserError:
    files = [source / name for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")]
    pointers = [file.name for file in files if file.exists() and file.read_bytes()[: len(POINTER)] == POINTER]
    if pointers:
        return invalid_config(
            f"{uri}: {pointers[0]} is a pointer of git-lfs and not the file", hint="run git lfs pull in that folder"
        )
    return invalid_config(
        f"{uri} has a tokenizer that cannot be read: {first_line(error)}",
        hint="copy tokenizer.json and tokenizer_config.json again; they have to be whole and of one model",
    )


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of prepared data."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def end_tokens(tokenizer: Any) -> list[int]:
    """The end of a text, and the end of a turn where the tokenizer has one."""
    known = tokenizer.get_vocab()
    turns = [known[token] for token in ("<|im_end|>", "<end_of_turn>", "<|eot_id|>") if token in known]
    return sorted({tokenizer.eos_token_id, *turns} - {None})


def _up_to(texts: Iterator[str], limit: int) -> Iterator[str]:
    for text in texts:
        if limit <= 0:
            return
        yield text[:limit]
        limit -= len(text)
