"""What runs in the process of its own: llama.cpp's converter, told the two things that it guesses or leaves out.

    python converter_process.py CONVERTER MODEL OUTFILE NAME PRE EOS     (PRE and EOS may be empty)

CONVERTER goes first on the path, because the converter brings a `gguf` of its own that must not be mixed with ours. So this
file imports nothing of Trainyard.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

UNKNOWN_TOKENIZER = 65
"""Exit code: neither the converter nor PRE says how this tokenizer cuts text."""
UNKNOWN_ARCHITECTURE = 66
"""Exit code: the converter has no rules for the model's class."""

LARGEST = ("embed_tokens.weight", "lm_head.weight", "wte.weight", "embed_in.weight", "embed_out.weight")
"""Names of matrices over the vocabulary."""


def main(converter: str, model: str, outfile: str, name: str, pre: str, eos: str) -> int:
    sys.path.insert(0, converter)
    gguf: Any = import_module("gguf")
    base: Any = import_module("conversion.base")
    convert: Any = import_module("convert_hf_to_gguf")

    architecture = base.get_model_architecture(base.ModelBase.load_hparams(Path(model), False), base.ModelType.TEXT)
    try:
        import_module("conversion").get_model_class(architecture)
    except NotImplementedError:
        print(architecture)
        return UNKNOWN_ARCHITECTURE
    known = base.TextModel.get_vocab_base_pre

    def pre_tokenizer(self: Any, tokenizer: Any) -> str:
        """The converter's own answer, by a hash of what the tokenizer makes of a text; PRE where it has none."""
        try:
            return str(known(self, tokenizer))
        except NotImplementedError:
            if not pre:
                raise SystemExit(UNKNOWN_TOKENIZER) from None
            return pre

    vocabulary = gguf.SpecialVocab.add_to_gguf

    def with_end(self: Any, writer: Any, quiet: bool = False) -> None:
        """A file whose eos_token_id is a list, with no eos_token elsewhere, would get no end and answer for ever."""
        if eos:
            self.special_token_ids.setdefault("eos", int(eos))
        vocabulary(self, writer, quiet)

    tensors = base.ModelBase.get_tensors

    def without_detour(self: Any) -> Any:
        """The converter takes every bf16 tensor to f16 by way of f32; the largest one alone makes its peak of memory."""
        for name, data in tensors(self):
            straight = name.endswith(LARGEST) and str(data.dtype) == "torch.bfloat16"
            yield name, data.half() if straight else data

    base.ModelBase.get_tensors = without_detour
    base.TextModel.get_vocab_base_pre = pre_tokenizer
    gguf.SpecialVocab.add_to_gguf = with_end
    sys.argv = ["convert-hf-to-gguf", "--outtype", "f16", "--outfile", outfile, "--model-name", name, model]
    convert.main()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:7]))
