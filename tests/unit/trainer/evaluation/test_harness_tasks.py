"""What is refused of tasks before the harness reads them, each with the file, the field and the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from trainyard.api.run.harness import HARNESS_METRICS
from trainyard.trainer.errors import UserError
from trainyard.trainer.evaluation.harness.ask import metrics_of
from trainyard.trainer.evaluation.harness.tasks import Folder, check_gated, check_task
from trainyard.trainer.volume.claims import Bounds

TASK: dict[str, Any] = {
    "task": "pick",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "questions.jsonl"}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "metric_list": [{"metric": "acc", "aggregation": "mean"}],
}


def folder(tmp_path: Path, text: str | None = None, **changes: Any) -> Folder:
    place = tmp_path / "claim"
    place.mkdir()
    (place / "questions.jsonl").write_text("{}\n")
    (place / "pick.yaml").write_text(yaml.safe_dump({**TASK, **changes}) if text is None else text)
    return Folder(place, Bounds(place, "claim tasks"))


def fault(there: Folder, name: str = "pick") -> str:
    with pytest.raises(UserError) as caught:
        check_task(there, *there.task(name))
    assert caught.value.hint
    return f"{caught.value}"


def test_a_task_with_its_data_is_let_through(tmp_path: Path) -> None:
    there = folder(tmp_path, metric_list=[{"metric": name} for name in HARNESS_METRICS])
    check_task(there, *there.task("pick"))


def test_a_task_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    assert "has the task choose (tasks that are there: pick)" in fault(folder(tmp_path), "choose")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric_list": [{"metric": "rouge"}]}, "metric rouge is none that the harness computes by itself"),
        ({"metric_list": [{"metric": "acc", "hf_evaluate": True}]}, "metric acc is none that the harness computes"),
        ({"metric_list": [{"metric": "acc", "aggregation": "best"}]}, "aggregation best of metric acc is not known"),
        ({"dataset_path": "org/data"}, "dataset_path org/data is not a file's format"),
        ({"dataset_path": None}, "dataset_path None is not a file's format"),
        ({"dataset_kwargs": {}}, "dataset_kwargs.data_files names no file"),
        (
            {"dataset_kwargs": {"data_files": "other.jsonl"}},
            "data_files other.jsonl is not there (there are pick.yaml, questions",
        ),
        (
            {"dataset_kwargs": {"data_files": ["/etc/passwd"]}},
            "data_files /etc/passwd is not in the folder of includeFrom",
        ),
        ({"dataset_kwargs": {"data_files": {"test": "https://x/y"}}}, "data_files https://x/y is not in the folder"),
        ({"unsafe_code": True}, "unsafe_code runs code"),
        ({"use_prompt": "promptsource:x"}, "use_prompt runs code"),
        ({"group": "pick", "task": ["a"]}, "is a group of tasks"),
    ],
)
def test_what_runs_code_or_asks_the_internet_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    message = fault(folder(tmp_path, **changes))
    assert "spec.evaluation.harness: pick.yaml" in message
    assert words in message


def test_functions_are_named_and_never_imported(tmp_path: Path) -> None:
    text = yaml.safe_dump(TASK) + "process_docs: !function utils.process\n"
    (tmp_path / "utils.py").write_text("raise SystemExit(9)")
    assert "process_docs is code (!function utils.process)" in fault(folder(tmp_path, text))


def test_an_included_file_counts_as_if_it_stood_there(tmp_path: Path) -> None:
    there = folder(tmp_path, "include: base.yaml\ntask: pick\n")
    (there.path / "base.yaml").write_text(yaml.safe_dump({**TASK, "metric_list": [{"metric": "rouge"}]}))
    assert "metric rouge" in fault(there)
    (there.path / "base.yaml").write_text("include: pick.yaml\n")
    assert "goes round in a circle" in fault(Folder(there.path, there.bounds))


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    there = folder(tmp_path)
    (tmp_path / "secret").write_text("x")
    (there.path / "questions.jsonl").unlink()
    (there.path / "questions.jsonl").symlink_to(tmp_path / "secret")
    assert "out of claim tasks" in fault(there)


def test_what_is_no_yaml_is_told(tmp_path: Path) -> None:
    assert "pick.yaml" in fault(folder(tmp_path, "task: [pick\n"))


def test_names_of_metrics_are_such_as_trackers_take() -> None:
    entries = {"acc,none": 0.5, "acc_stderr,none": "N/A", "exact_match,strict": 1, "alias": "pick", "sample_len": 3}
    assert metrics_of({"pick": entries}) == {"pick/acc": 0.5, "pick/exact_match.strict": 1.0}


def test_a_gate_on_what_the_task_does_not_measure_is_told_with_what_it_does() -> None:
    strict = {**TASK, "filter_list": [{"name": "strict", "filter": [{"function": "take_first"}]}]}
    check_gated("pick/acc", TASK, told="pick.yaml")
    check_gated("pick/acc.strict", strict, told="pick.yaml")
    check_gated("pick/acc_norm", {**TASK, "metric_list": None}, told="pick.yaml")
    for metric, task, known in (("pick/acc_norm", TASK, "pick/acc"), ("pick/acc", strict, "pick/acc.strict")):
        with pytest.raises(UserError, match=f"gates: {metric} is not measured by pick.yaml .it measures {known}.$"):
            check_gated(metric, task, told="pick.yaml")
