"""A GPU that was asked for and is not there: refused with what was found, or told where the CPU stands in on purpose."""

from __future__ import annotations

from typing import Any

import pytest

from trainyard.api.exitcodes import ExitCode
from trainyard.api.run.trainingrun import TrainingRunSpec
from trainyard.trainer.errors import UserError
from trainyard.trainer.machine.missing_gpu import check_simulated, gpus_asked, is_gpu

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow


def spec(**more: Any) -> TrainingRunSpec:
    return TrainingRunSpec.model_validate({"command": ["x"], "image": "y", **more})


def test_which_resources_are_gpus() -> None:
    assert all(
        is_gpu(name) for name in ("nvidia.com/gpu", "amd.com/gpu", "nvidia.com/mig-1g.5gb", "nvidia.com/gpu.shared")
    )
    assert not any(is_gpu(name) for name in ("cpu", "memory", "smarter-devices/fuse", "rdma/hca"))


def test_each_step_asks_for_its_own() -> None:
    limits = {"limits": {"nvidia.com/gpu": 2, "memory": "1Gi"}}
    asking = spec(resources=limits)
    assert [gpus_asked(asking, step) for step in ("prepare", "train", "train-two", "evaluate")] == [0, 2, 2, 0]
    assert gpus_asked(spec(stepResources={"evaluate": limits}), "evaluate") == 2
    assert gpus_asked(spec(), "train") == 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
class TestWithoutOne:
    def test_it_is_refused_with_what_was_found(self) -> None:
        with pytest.raises(UserError, match="asks for 2 GPUs, and this process sees none: ") as caught:
            check_simulated(2, {"CUDA_VISIBLE_DEVICES": ""})
        assert caught.value.exit_code == ExitCode.INVALID_CONFIG
        assert "CUDA_VISIBLE_DEVICES is ''" in caught.value.message
        assert "there is no /dev/nvidia0" in caught.value.message
        assert "there is no nvidia-smi in the container" in caught.value.message

    def test_torch_without_cuda_is_told_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.version, "cuda", None)
        with pytest.raises(UserError, match="is built for the CPU") as caught:
            check_simulated(1, {})
        assert "use the trainer's CUDA image (spec.image)" in caught.value.hint

    def test_the_cpu_may_stand_in_and_says_so(self, capsys: pytest.CaptureFixture[str]) -> None:
        check_simulated(1, {"SIMULATED_GPU": "1"})
        told = capsys.readouterr()
        assert "the run asks for 1 GPU, and there is none here" in told.out + told.err
        check_simulated(0, {})
