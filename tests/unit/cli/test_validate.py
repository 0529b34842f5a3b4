"""`trainyard validate`: what it prints, and how it ends."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.unit.cli.calling import call

QUICKSTART = ROOT / "examples/quickstart/trainingrun.yaml"
EXAMPLES = sorted(p for p in ROOT.glob("examples/*/*.yaml") if "apiVersion: trainyard.dev" in p.read_text())

WRONG = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata: {name: wrong}
spec:
  model: {storageUri: hf://org/name}
  datasets:
  - name: d
    inline: {text: x}
  training:
    maxStep: 5
    learningRate: -1
"""


def run(*arguments: str, stdin: str = "") -> tuple[int, str]:
    result = call("validate", *arguments, stdin=stdin)
    return result.exit_code, result.output


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT / "examples")))
def test_every_example_is_valid(path: Path) -> None:
    code, output = run("-f", str(path))
    assert code == 0, output


def test_valid_names_the_steps() -> None:
    code, output = run("-f", str(QUICKSTART))
    assert (code, output) == (
        0,
        f"{QUICKSTART}: TrainingRun quickstart is valid: prepare -> train -> evaluate -> export-file\n",
    )


def test_valid_names_exports_too_and_what_is_deprecated() -> None:
    text = QUICKSTART.read_text() + "  pushToHub: {repo: org/name, secretRef: {name: hub}}\n"
    code, output = run("-f", "-", stdin=text)
    assert code == 0, output
    deprecated, valid = output.splitlines()
    assert "spec.pushToHub is deprecated" in deprecated
    assert valid.endswith("prepare -> train -> evaluate -> export-file -> export-push-to-hub")


def test_faults_stand_with_file_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    code, output = run("-f", str(path))
    assert code == 1
    assert output.splitlines() == [
        f"{path}:10: spec.training.maxStep: unknown field; did you mean maxSteps?",
        f"{path}:11: spec.training.learningRate: -1 is not allowed: must be greater than 0",
        f"{path}: TrainingRun wrong has 2 faults",
    ]


def test_json_for_programs() -> None:
    code, output = run("-f", "-", "-o", "json", stdin=WRONG)
    answer = json.loads(output)
    assert code == 1
    assert answer["valid"] is False
    (run_answer,) = answer["files"][0]["objects"]
    assert run_answer["name"] == "wrong"
    assert run_answer["faults"][0] == {
        "field": "spec.training.maxStep",
        "line": 10,
        "message": "unknown field; did you mean maxSteps?",
    }


def test_several_documents_and_other_kinds() -> None:
    code, output = run(
        "-f", "-", stdin=f"kind: Secret\nmetadata: {{name: s}}\n---\n{QUICKSTART.read_text()}---\n{WRONG}"
    )
    assert code == 1
    assert "TrainingRun quickstart is valid" in output
    assert "TrainingRun wrong has 2 faults" in output
    assert "passed over Secret s" in output


def test_lines_count_from_the_start_of_the_file() -> None:
    _, output = run("-f", "-", stdin=f"kind: Secret\n---\n{WRONG}")
    assert "standard input:12: spec.training.maxStep" in output


def test_one_name_twice_is_a_fault() -> None:
    text = QUICKSTART.read_text()
    code, output = run("-f", "-", stdin=f"{text}---\n{text}")
    assert code == 1
    assert "stands in this file twice" in output


@pytest.mark.parametrize("text", ["", "kind: ConfigMap\n", "- 1\n"])
def test_a_file_without_a_run_is_a_fault(text: str) -> None:
    code, output = run("-f", "-", stdin=text)
    assert code == 1
    assert "expected a TrainingRun, TrainingSchedule or TrainingSweep" in output


def test_a_slip_in_the_kind_is_not_passed_over() -> None:
    code, output = run("-f", "-", stdin=QUICKSTART.read_text().replace("kind: TrainingRun", "kind: TrainRun"))
    assert code == 1
    assert "expected apiVersion trainyard.dev/v1alpha1 and kind TrainingRun" in output


SCHEDULE = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingSchedule
metadata: {name: nightly}
spec:
  schedule: "0 25 * * *"
  variants:
  - name: good
  - name: bad
    patch: {training: {maxSteps: 0}}
  template:
    spec:
      model: {storageUri: hf://org/name}
      datasets: [{name: d, inline: {text: x}}]
      training: {method: SFT}
"""


SWEEP = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingSweep
metadata: {name: tune}
spec:
  objective: {metric: eval_loss}
  numTrials: 5
  parameters:
  - name: training.learningRate
    double: {min: 0.1, max: 20}
  - name: datasets[3].weight
    int: {min: 1, max: 2}
  template:
    spec:
      model: {storageUri: hf://org/name}
      datasets: [{name: d, inline: {text: x}}]
      training: {method: SFT, evalSteps: 5}
"""


def test_a_sweep_is_checked_with_its_parameters_and_the_runs_that_they_make() -> None:
    code, output = run("-f", "-", stdin=SWEEP)
    assert code == 1
    assert (
        "standard input:10: spec.parameters[1].name: datasets[3].weight leads nowhere: the template has 1 entries"
        in output
    )
    code, output = run("-f", "-", stdin=SWEEP.replace("datasets[3].weight", "datasets[0].weight"))
    assert code == 1
    assert (
        "standard input:8: spec.parameters[0] (training.learningRate = 20.0): spec.training.learningRate: 20.0 is not "
        "allowed: must be at most 10" in output
    )
    fine = SWEEP.replace("datasets[3].weight", "datasets[0].weight").replace("max: 20", "max: 1")
    assert run("-f", "-", stdin=fine) == (
        0,
        "standard input: TrainingSweep tune is valid: prepare -> train\n",
    )


def test_a_schedule_is_checked_with_its_clock_and_its_variants() -> None:
    code, output = run("-f", "-", stdin=SCHEDULE)
    assert code == 1
    lines = output.splitlines()
    assert lines[0].startswith("standard input:5: spec.schedule: ")
    assert lines[1].startswith("standard input:8: spec.variants[1] (bad): spec.training.maxSteps: 0 is not allowed")
    assert lines[2] == "standard input: TrainingSchedule nightly has 2 faults"


def test_a_valid_schedule_names_the_steps_of_its_runs() -> None:
    text = SCHEDULE.replace("25", "4").replace("maxSteps: 0", "maxSteps: 1")
    assert run("-f", "-", stdin=text) == (0, "standard input: TrainingSchedule nightly is valid: prepare -> train\n")


def test_a_fault_of_a_schedules_own_fields() -> None:
    _, output = run("-f", "-", stdin=SCHEDULE.replace("variants:", "varients:"))
    assert "standard input:6: spec.varients: unknown field; did you mean variants?" in output


def test_a_folder_stands_for_its_manifests(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(QUICKSTART.read_text())
    (tmp_path / "b.txt").write_text("no manifest")
    code, output = run("-f", str(tmp_path))
    assert code == 0
    assert len(output.splitlines()) == 1


def test_a_missing_file_is_a_wrong_command_line() -> None:
    code, output = run("-f", "nowhere.yaml")
    assert code == 2
    assert "cannot read nowhere.yaml" in output


def test_it_is_quick_and_small_and_never_loads_torch() -> None:
    """The bound is CPU time, so that a busy machine does not fail it; the wall clock of an idle one is the same."""
    program = (
        "import sys; sys.argv = ['trainyard', 'validate', '-f', sys.argv[1]]\n"
        "from trainyard.cli.main import main\n"
        "try:\n    main()\n"
        "finally:\n    assert not {'torch', 'kopf', 'kubernetes', 'transformers', 'rich'} & set(sys.modules)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program, str(QUICKSTART)], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime) < 1.0


DATA = """\
apiVersion: trainyard.dev/v1alpha1
kind: TrainingRun
metadata: {name: data}
spec:
  mode: Dataset
  datasets:
  - name: here
    format: TrainingExample
    inline:
      records:
      - {prompt: a, response: b}
      - {prompt: a}
  - name: volume
    storageUri: pvc://claim/a.jsonl
  - name: held
    role: Test
    storageUri: pvc://claim/b.jsonl
  - name: away
    storageUri: s3://bucket/a.jsonl
"""


class TestData:
    def test_what_stands_in_the_manifest_is_always_read(self) -> None:
        code, output = run("-f", "-", stdin=DATA)
        assert code == 1
        assert output.splitlines()[0] == (
            "standard input:7: spec.datasets[here]: dataset here:2: field response: is missing, format TrainingExample needs it; "
            "the record has prompt"
        )

    def test_files_are_read_on_demand(self, tmp_path: Path) -> None:
        (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "a"}\n{"txt": "b"}\n')
        (tmp_path / "b.jsonl").write_text('{"text": "a"}\n')
        code, output = run("-f", "-", "--data", "--volume", f"claim={tmp_path}", stdin=DATA)
        assert code == 1
        assert "a.jsonl:3: field text: is missing, format Text needs it; did you mean to call txt so?" in output
        assert "dataset volume: 3 records, 1 more than once" in output
        assert "1 records stand in a training dataset and in one that is held out" in output
        assert "dataset away: not on this machine" in output

    def test_and_told_as_json(self, tmp_path: Path) -> None:
        code, output = run("-f", "-", "--data", "-o", "json", stdin=DATA)
        (found,) = json.loads(output)["files"][0]["objects"]
        assert code == 1
        assert not found["valid"]
        assert found["faults"][0]["line"] == 7
        assert "dataset volume: not on this machine; mode DryRun checks it in the cluster" in found["remarks"]

    def test_no_library_of_the_trainer_is_imported(self) -> None:
        heavy = ("torch", "transformers", "numpy", "pyarrow", "boto3", "tokenizers")
        code = (
            "import sys; from tests.unit.cli.calling import call; "
            f"found = call('validate', '--data', '-f', '-', stdin={DATA!r}); "
            f"print(found.exit_code, [m for m in {heavy!r} if m in sys.modules])"
        )
        found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
        assert found.stdout.strip() == "1 []"
