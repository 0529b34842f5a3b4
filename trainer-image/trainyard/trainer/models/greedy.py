"""Generation that takes the likeliest token each time and nothing else into account.

A model folder may hold settings of generation that its authors wish for (a penalty for repetition, beams). transformers applies
them wherever a caller leaves them open, other programs do not, and what is measured here is the model without them.
"""

from __future__ import annotations

from typing import Any


def greedy(**settings: Any) -> Any:
    """A configuration of generation with these settings, that no setting of the model's own shines through."""
    from transformers import GenerationConfig

    return GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        min_length=0,
        use_cache=True,
        **settings,
    )
