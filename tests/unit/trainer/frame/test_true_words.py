"""Numbers and advice at the ends of a training: JSON that is JSON, no word about what was done already."""

import json
import math

import pytest

from trainyard.api.run.training import Training
from trainyard.trainer.frame.evaluate import in_json
from trainyard.trainer.frame.out_of_memory import too_large
from trainyard.trainer.steps import LANGUAGE


def test_a_perplexity_beyond_any_float_is_null_in_the_files_and_records() -> None:
    found = in_json({"metrics": {"loss": 10513.0, "perplexity": math.inf, "list": [math.nan, 1.5]}, "records": 3})
    assert json.loads(json.dumps(found, allow_nan=False)) == {
        "metrics": {"loss": 10513.0, "perplexity": None, "list": [None, 1.5]},
        "records": 3,
    }


@pytest.mark.parametrize("allowed", [True, False])
def test_an_adapter_is_not_advised_to_who_trains_one(allowed: bool) -> None:
    settings = Training(max_length=512)
    hint = too_large("no room", settings, LANGUAGE.ladder, allowed=allowed, adapted=True).hint
    assert hint
    assert "LoRA" not in hint
    assert "  " not in hint
    assert "train a LoRA adapter" in str(too_large("no room", settings, LANGUAGE.ladder, allowed=allowed).hint)
