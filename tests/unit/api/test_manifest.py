"""Reading manifests: numbers as kubectl reads them, lines, and messages that name field, value and way out."""

import textwrap
from typing import Any

import pytest
import yaml

from trainyard.api.manifest import Fault, InvalidManifest, parse_run, read_documents, read_run

VALID = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata:
  name: a
spec:
  model:
    storageUri: hf://org/name
  datasets:
  - name: d
    inline:
      text: hello
  training:
    method: SFT
"""


def faults_of(text: str) -> dict[str, Fault]:
    with pytest.raises(InvalidManifest) as caught:
        read_run(text)
    return {fault.field: fault for fault in caught.value.faults}


def test_inline_data_is_bounded_over_all_datasets_of_a_run() -> None:
    def run(*inline: dict[str, Any]) -> dict[str, Any]:
        manifest: dict[str, Any] = yaml.safe_load(VALID)
        manifest["spec"]["datasets"] = [{"name": f"d{n}", "inline": data} for n, data in enumerate(inline)]
        return manifest

    text, records = {"text": "ä" * 131_072}, {"records": [{"text": "ö" * 131_000}]}
    parse_run(run(text, text))
    parse_run(run(text, records))
    for too_much in ([text, text, {"text": "x"}], [text, records, {"records": [{"text": "y" * 200}]}]):
        with pytest.raises(InvalidManifest, match="inline data of all datasets together has more than 524288 bytes"):
            parse_run(run(*too_much))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1e-4", 1e-4),
        ("1E+2", 100),
        ("1e3", 1000),
        ("5.0", 5),
        ("5.5", 5.5),
        (".5", 0.5),
        ("-3", -3),
        ("0x1F", 31),
        ("0777", 511),
        ("1_000", 1000),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ('"1e-4"', "1e-4"),
        ("yes", True),
        ("~", None),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(written: str, read: Any) -> None:
    value = read_documents(f"key: {written}")[0].value["key"]
    assert value == read
    assert type(value) is type(read)


def test_the_usual_loader_would_have_read_a_text() -> None:
    assert yaml.safe_load("1e-4") == "1e-4"


def test_a_valid_run_is_read_with_its_defaults() -> None:
    run = read_run(VALID)
    assert run.metadata.name == "a"
    assert run.spec.backoff_limit == 3
    assert run.spec.steps() == ("prepare", "train")


def test_other_kinds_in_the_same_file_are_passed_over() -> None:
    assert read_run(f"kind: Secret\n---\n{VALID}---\n").metadata.name == "a"


def test_two_runs_where_one_is_expected() -> None:
    assert "found 2" in faults_of(f"{VALID}---\n{VALID}")["manifest"].message


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: [1,\n", 2, "expected"),
        ("a: 1\n b: 2\n", 2, "mapping values"),
        ("a: *nowhere\n", 1, "undefined alias"),
        ("a: 1\nb: 2\na: 3\n", 3, "stands twice"),
        ("x:\n  a: 1\n  a: 2\n", 3, "stands twice"),
        ("a: 1\nb: \x01\n", 2, "U+0001"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
    ],
)
def test_broken_yaml_is_reported_with_its_line(text: str, line: int, part: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        read_documents(text)
    (fault,) = caught.value.faults
    assert fault.line == line
    assert part in fault.message


def test_an_alias_that_stands_for_itself_ends() -> None:
    assert read_documents("a: &x [*x]\n")[0].line(("a", 0)) == 1


def test_a_merged_key_may_be_overridden() -> None:
    assert read_documents("b: &b {x: 1}\nc: {<<: *b, x: 2}\n")[0].value["c"] == {"x": 2}


def test_all_faults_are_reported_at_once_each_with_its_line() -> None:
    text = VALID.replace("method: SFT", "method: SFT\n    maxSteps: -5\n    packin: true\n    learningRate: 0").replace(
        "name: d", "name: D_1"
    )
    faults = faults_of(text)
    assert {(field, fault.line) for field, fault in faults.items()} == {
        ("spec.datasets[0].name", 9),
        ("spec.training.maxSteps", 14),
        ("spec.training.packin", 15),
        ("spec.training.learningRate", 16),
    }
    assert faults["spec.training.maxSteps"].message == "-5 is not allowed: must be at least 1"
    assert faults["spec.training.packin"].message == "unknown field; did you mean packing?"
    assert "'D_1' does not have the form it needs" in faults["spec.datasets[0].name"].message


def test_two_broken_rules_of_one_object_are_both_reported() -> None:
    text = VALID.replace("spec:", "spec:\n  args: [x]").replace("method: SFT", "method: Pretrain")
    with pytest.raises(InvalidManifest) as caught:
        read_run(text)
    assert [fault.field for fault in caught.value.faults] == ["spec", "spec"]


@pytest.mark.parametrize(("processes", "fits"), [(2, True), (6, True), (4, False), (12, False)])
def test_a_tiny_recursive_models_batch_is_shared_out_evenly(processes: int, fits: bool) -> None:
    spec = {
        "model": {"trm": {}},
        "datasets": [{"name": "d", "puzzle": {"kind": "Sudoku", "size": 4}}],
        "training": {"method": "TRM", "perDeviceTrainBatchSize": 3, "gradientAccumulationSteps": 2},
        "numProcPerNode": processes,
    }
    text = VALID[: VALID.index("spec:")] + yaml.safe_dump({"spec": spec})
    if fits:
        assert read_run(text).spec.world_size == processes
    else:
        assert "must be divisible by numNodes x numProcPerNode" in faults_of(text)["spec"].message


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ('suspend: "true"', "'true' is not allowed: must be true or false, without quotes"),
        ("suspend: 1", "1 is not allowed: must be true or false"),
        ('debugSteps: "5"', "'5' is not allowed: must be a whole number, without quotes"),
        ("debugSteps: 5.5", "5.5 is not allowed: must be a whole number"),
        ("image: 5", "5 is not allowed: must be a text; write it in quotes"),
        ("placement: []", "[] is not allowed: must be a mapping of keys to values"),
        ("exports: []", "is empty: give at least 1, or leave the field out if it need not be there"),
        ("datasets: {}", "{} is not allowed: must be a list"),
        ("mode: train", "'train' is not one of Train, DryRun, Debug or Dataset; did you mean Train?"),
    ],
)
def test_a_value_of_the_wrong_type(written: str, message: str) -> None:
    field = written.partition(":")[0]
    spec = yaml.safe_load(VALID)["spec"]
    spec.pop(field, None)
    text = VALID[: VALID.index("spec:")] + yaml.safe_dump({"spec": spec}) + textwrap.indent(written, "  ") + "\n"
    assert faults_of(text)[f"spec.{field}"].message == message


def test_a_bad_quantity_is_one_fault() -> None:
    faults = faults_of(VALID.replace("spec:", "spec:\n  resources: {limits: {memory: 16GB}}"))
    assert list(faults) == ["spec.resources.limits.memory"]
    assert "'16GB' is not a quantity" in faults["spec.resources.limits.memory"].message


@pytest.mark.parametrize("value", [None, 5, "text", ["list"]])
def test_what_is_no_mapping(value: Any) -> None:
    with pytest.raises(InvalidManifest, match="expected a mapping"):
        parse_run(value)


@pytest.mark.parametrize("change", [{"apiVersion": "trainyard.dev/v1"}, {"kind": "Trainingrun"}, {"kind": None}])
def test_another_kind_or_version(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidManifest, match=r"expected apiVersion trainyard\.dev/v1alpha1 and kind TrainingRun"):
        parse_run({**yaml.safe_load(VALID), **change})
