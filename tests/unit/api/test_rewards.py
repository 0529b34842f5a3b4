"""Rules about rewards that no schema can hold: the operator and `validate` refuse what breaks them."""

from typing import Any

import pytest

from tests.unit.controller.runs.world import manifest
from trainyard.api.manifest import InvalidManifest, parse_run

PROMPTS = [{"name": "d", "format": "Prompt", "inline": {"records": [{"prompt": "a"}]}}]


def rewarded(**reward: Any) -> dict[str, Any]:
    training = {"method": "GRPO", "maxSteps": 1, "rewards": [reward]}
    return manifest(
        model={"storageUri": "hf://a/b"}, datasets=PROMPTS, training=training, evaluation={"enabled": False}
    )


@pytest.mark.parametrize("memory", ["64Mi", "1Gi", "4Gi", 2**28])
def test_a_judged_program_has_as_much_memory_as_python_needs(memory: Any) -> None:
    parse_run(rewarded(code={"memory": memory}))


@pytest.mark.parametrize("memory", ["0", "4", "63Mi", "5Gi", "500m"])
def test_less_or_more_is_refused(memory: str) -> None:
    with pytest.raises(InvalidManifest, match=r"code\.memory is from 64Mi to 4Gi"):
        parse_run(rewarded(code={"memory": memory}))
