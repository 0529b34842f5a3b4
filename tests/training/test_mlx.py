"""A folder for MLX, on a CPU: converted, loaded and asked the same as the model itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.small_llama import small_llama
from trainyard.api.run.targets.mlx import Mlx
from trainyard.trainer.errors import UserError
from trainyard.trainer.exports.handover.questions import questions
from trainyard.trainer.exports.handover.reference import Reference, answers_of
from trainyard.trainer.exports.mlx import check_folder, convert

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FIELD = "spec.exports[apple].mlx"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def reference(model: Path) -> Reference:
    return answers_of(model, questions(Path("nowhere"), chat=True))


def test_the_folder_answers_as_transformers_to_the_token(model: Path, reference: Reference, tmp_path: Path) -> None:
    convert(model, tmp_path, Mlx(), field=FIELD)
    assert check_folder(tmp_path, reference, field=FIELD, exact=True).share == 1.0


def test_a_quantized_folder_renders_and_ends_as_the_model(model: Path, reference: Reference, tmp_path: Path) -> None:
    convert(model, tmp_path, Mlx(bits=4, group_size=32), field=FIELD)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization"]["bits"] == 4
    assert check_folder(tmp_path, reference, field=FIELD, exact=False).questions == 8


def test_a_wrong_rope_value_and_another_template_are_found(model: Path, reference: Reference, tmp_path: Path) -> None:
    convert(model, tmp_path, Mlx(), field=FIELD)
    config = json.loads((tmp_path / "config.json").read_text())
    wrong = config | {"rope_theta": 10000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match="answers '"):
        check_folder(tmp_path, reference, field=FIELD, exact=True)
    (tmp_path / "config.json").write_text(json.dumps(config))
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant", "<|im_start|>model"))
    with pytest.raises(UserError, match="renders the chat as"):
        check_folder(tmp_path, reference, field=FIELD, exact=False)


def test_a_kind_of_model_that_mlx_does_not_know_is_refused(tmp_path: Path) -> None:
    folder = small_llama(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "strange"}))
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="mlx-lm refuses the model"):
        convert(folder, tmp_path / "out", Mlx(), field=FIELD)
