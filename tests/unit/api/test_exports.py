"""What is told of exports that cannot stand so, by the names of those that are meant."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.manifests import SCRATCH, run
from trainyard.api.manifest import InvalidManifest, parse_run

STORE: dict[str, Any] = {"name": "store", "s3": {"uri": "s3://models/{version}/"}}
FILES: dict[str, Any] = {"name": "files", "gguf": {"quantizations": ["f16"]}}


def test_exports_of_one_name_are_told_by_it() -> None:
    again = {**STORE, "s3": {"uri": "s3://models/again/{version}/"}}
    with pytest.raises(InvalidManifest, match=r"two exports have the same name: rename one of them \(store\)$"):
        parse_run(run({**SCRATCH, "exports": [STORE, FILES, again]}))


def test_exports_that_take_no_model_of_scores_are_told_by_their_names() -> None:
    pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    scoring = {
        "model": SCRATCH["model"],
        "datasets": [{"name": "pairs", "format": "Preference", "inline": {"records": pairs}}],
        "training": {"method": "RewardModel"},
    }
    with pytest.raises(
        InvalidManifest, match=r"makes one that scores it: hand it out as it is, by s3 or hub \(files\)$"
    ):
        parse_run(run({**scoring, "exports": [STORE, FILES]}))
