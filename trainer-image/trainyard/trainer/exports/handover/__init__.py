"""Does the exported file answer as the trained model does? The same eight prompts to both, before anybody is told of the file.

    questions (the run's data) -> reference (transformers on model/) -> expected ┐
                               -> llama.cpp, Ollama or MLX           -> found    ┴ compare -> agreement, or UserError

Most complaints after an export have one of three causes: another chat template, no end of an answer, a value of the
configuration that went wrong on the way. The first is compared as text, byte for byte, the second as a token, the third shows
in what is answered: at full precision the same tokens.
"""
