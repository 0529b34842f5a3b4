"""The CRD as a whole: the API server calls it structural, fills in defaults, and shows what we promise."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT
from tests.api.conftest import CRDS, Group, Objects
from tests.api.manifests import SCRATCH, run
from tests.api.server import KUBECONFIG, ApiServer
from trainyard.api import API_VERSION
from trainyard.api.crd import PRINTER_COLUMNS, files
from trainyard.api.manifest import parse_run, read_documents

pytestmark = pytest.mark.api

EXAMPLES = sorted(p for p in ROOT.glob("examples/*/*.yaml") if API_VERSION in p.read_text())


def kubectl(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    program = KUBECONFIG.parent / "bin/kubectl"
    return subprocess.run(
        [str(program), "--kubeconfig", str(KUBECONFIG), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("text", files().values(), ids=files())
def test_the_generated_files_are_accepted_as_they_are(text: str, server: ApiServer) -> None:
    crd = yaml.safe_load(text)
    answer = server.request(
        "PATCH",
        f"{CRDS}/{crd['metadata']['name']}",
        crd,
        content_type="application/apply-patch+yaml",
        fieldManager="trainyard-test",
        force="true",
        dryRun="All",
        fieldValidation="Strict",
    )
    assert answer.accepted, answer.message


@pytest.mark.parametrize("plural", ["testtrainingruns", "testtrainingschedules", "testtrainingsweeps"])
def test_the_schema_is_structural_and_the_names_are_taken(
    plural: str, group: Group, runs: Objects, schedules: Objects, sweeps: Objects, server: ApiServer
) -> None:
    """The objects are there to be waited for: before it is served, a CRD has no conditions."""
    crd = server.request("GET", f"{CRDS}/{plural}.{group.name}").body
    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions


def defaults_of(value: Any) -> Any:
    """Without what is only there because Python spells absence: nulls, empty maps and lists, empty texts."""
    if isinstance(value, dict):
        cleaned = {k: defaults_of(v) for k, v in value.items()}
        return {k: v for k, v in cleaned.items() if v not in (None, {}, [], "")}
    return [defaults_of(v) for v in value] if isinstance(value, list) else value


OBJECTS: dict[str, Any] = {
    "checkpoints": {}, "evaluation": {}, "storage": {"checkpoints": {}}, "podTemplate": {}, "estimate": {},
}  # fmt: skip


def test_both_sides_fill_in_the_same_defaults(runs: Objects) -> None:
    there = runs.dry_run(run(SCRATCH | OBJECTS)).body["spec"]
    here = parse_run(run(SCRATCH)).spec.model_dump(by_alias=True, mode="json")
    # Kubernetes has no default for lists in our schema: absent there, filled in by the operator when it reads.
    here["storage"]["checkpoints"].pop("accessModes")
    assert defaults_of(there) == defaults_of(here)


def test_an_object_that_nobody_wrote_is_not_stored(runs: Objects) -> None:
    assert not OBJECTS.keys() & runs.dry_run(run(SCRATCH)).body["spec"].keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: str(p.relative_to(ROOT / "examples")))
def test_every_example_is_accepted_by_kubectl_and_the_api_server(
    path: Path, runs: Objects, schedules: Objects, sweeps: Objects
) -> None:
    text = path.read_text().replace(API_VERSION, f"{runs.group}/v1alpha1")
    result = kubectl("apply", "--dry-run=server", "--validate=strict", "-n", runs.namespace, "-f", "-", stdin=text)
    assert result.returncode == 0, result.stderr


def test_kubectl_refuses_an_unknown_field_by_its_path(runs: Objects) -> None:
    manifest = runs.regrouped(run({**SCRATCH, "trainning": {}}))
    result = kubectl("apply", "--dry-run=server", "-n", runs.namespace, "-f", "-", stdin=yaml.safe_dump(manifest))
    assert result.returncode != 0
    assert 'unknown field "spec.trainning"' in result.stderr


SCALARS = (
    "1e-4", "1E3", "1e3", "5.0", "5.5", ".5", "-3", "+3", "0x1F", "0777", "1_000", "1:30", "2026-01-01", "yes", "no", "on",
    "off", "true", "True", "~", "null", '"1e-4"', "'yes'", "12e03", "1.", "text", "1.2.3", "",
)  # fmt: skip


def test_yaml_scalars_mean_to_us_what_they_mean_to_kubectl(runs: Objects) -> None:
    text = "".join(f"  k{i}: {scalar}\n" for i, scalar in enumerate(SCALARS))
    manifest = f"apiVersion: v1\nkind: List\nitems: []\nvalues:\n{text}"
    result = kubectl(
        "create", "--dry-run=client", "--validate=false", "-o", "json", "-f", "-", stdin=_probe(runs, text)
    )
    assert result.returncode == 0, result.stderr
    theirs = yaml.safe_load(result.stdout)["spec"]["model"]["scratch"]["config"]
    ours = read_documents(manifest)[0].value["values"]
    for i, scalar in enumerate(SCALARS):
        assert ours[f"k{i}"] == theirs.get(f"k{i}"), (
            f"{scalar!r}: {ours[f'k{i}']!r} is not kubectl's {theirs.get(f'k{i}')!r}"
        )


def _probe(runs: Objects, values: str) -> str:
    indented = "".join(f"      {line}\n" for line in values.splitlines())
    return (
        f"apiVersion: {runs.group}/v1alpha1\nkind: TrainingRun\nmetadata: {{name: probe}}\nspec:\n  model:\n    scratch:\n"
        f"      config:\n{indented}"
    )


def test_printed_columns_are_those_that_kubectl_shows(runs: Objects) -> None:
    assert runs.create(run({**SCRATCH, "suspend": True}, name="columns")).accepted
    status = {"state": "Training", "restarts": 0, "summary": {"method": "Pretrain", "progress": "42%", "loss": "1.25"}}
    assert runs.patch("columns", {"status": status}, status=True).accepted
    table = kubectl("get", f"testtrainingruns.{runs.group}", "columns", "-n", runs.namespace).stdout.splitlines()
    assert table[0].split() == ["NAME", *(name.upper() for name, _, _, priority, _ in PRINTER_COLUMNS if priority == 0)]
    assert table[1].split()[:4] == ["columns", "Training", "Pretrain", "42%"]


@pytest.mark.parametrize(
    ("field", "part"), [("spec.training.maxSteps", "Optimizer steps"), ("status.state", "One word")]
)
def test_kubectl_explain_tells_what_a_field_means(field: str, part: str, runs: Objects) -> None:
    result = kubectl("explain", f"testtrainingruns.{field}", f"--api-version={runs.group}/v1alpha1")
    assert part in result.stdout, result.stderr
