"""The documentation against the code: links, commands, names. What can drift is compared."""

import re
import subprocess
from pathlib import Path

import pytest

import generate
from tests import ROOT
from trainyard.api import manifest
from trainyard.api.base import Rule
from trainyard.api.conditions import ConditionType, Reason
from trainyard.api.crd import training_run_crd
from trainyard.api.exitcodes import ExitCode
from trainyard.api.run.changes import ROOT_RULES
from trainyard.api.run.trainingrun import TrainingRunSpec

PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/*/*.md"), *ROOT.glob("examples/*/README.md")])
METRIC = re.compile(r'"(trainyard_[a-z_]+)"')

ROOTS = {
    **dict.fromkeys(("api", "controller", "cli", "client"), "operator/trainyard"),
    "trainer": "trainer-image/trainyard",
}
"""Where the packages lie that the page on architecture names files from."""


def text(path: str) -> str:
    return (ROOT / path).read_text()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower().replace("`", "")).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(found), f"{target}: there is no such heading"


def test_every_page_stands_on_a_shelf_and_in_the_readme() -> None:
    readme = text("README.md")
    pages = [str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")]
    assert not [page for page in pages if not re.fullmatch(r"docs/(use|data|inside)/[a-z-]+\.md", page)]
    assert not [page for page in pages if f"]({page})" not in readme]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_manifests_in_the_text_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S):
        if "kind: TrainingRun" in block:
            manifest.read_run(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_make_targets_in_the_text_exist(page: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):.*## ", text("Makefile"), re.M))
    for target in re.findall(r"(?:^|[`=] ?|local |kind |existing )make ([a-z-]+)", page.read_text(), re.M):
        assert target in known, f"make {target} does not exist"


def test_what_the_page_on_architecture_names_is_in_the_code() -> None:
    named = re.findall(
        r"`((api|controller|cli|client|trainer|tools|tests)/[\w/]+\.py)(?:: ([\w., ]+))?`",
        text("docs/inside/architecture.md"),
    )
    assert len(named) > 80, "the page has another form than this test reads"
    for path, package, names in named:
        source = text(f"{ROOTS.get(package, '.')}/{path}")
        for name in names.replace(".", ", ").split(", ") if names else ():
            assert re.search(rf"^ *(async def|def|class) {name}\b|^{name}\b.* =", source, re.M), f"{path} has no {name}"


def test_every_reason_is_explained() -> None:
    page = text("docs/use/trainingrun.md")
    missing = [reason.value for reason in Reason if f"`{reason.value}`" not in page]
    assert not missing


def test_every_condition_is_explained() -> None:
    page = text("docs/use/trainingrun.md")
    assert not [kind.value for kind in ConditionType if f"| `{kind.value}` |" not in page]


def test_every_exit_code_is_explained() -> None:
    page = text("docs/use/progress.md")
    assert not [code for code in ExitCode if f"| {code.value} |" not in page]


def test_every_metric_is_explained() -> None:
    sources = ROOT.glob("operator/trainyard/controller/**/*.py")
    names = {name for path in sources for name in METRIC.findall(path.read_text())}
    page = text("docs/use/operations.md")
    assert names, "no metric was found in the sources"
    assert not sorted(name for name in names if name not in page)


def rules() -> list[Rule]:
    return [*TrainingRunSpec.rules, ROOT_RULES[0]]


def test_every_rule_of_the_spec_stands_in_the_table_of_errors() -> None:
    page = text("docs/use/errors.md")
    assert not [rule.message for rule in rules() if f"`{rule.message}`" not in page]


def test_every_field_of_the_spec_is_spoken_of() -> None:
    page = "".join(text(f"docs/use/{name}.md") for name in ("trainingrun", "storage", "placement", "progress"))
    fields = training_run_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert not [name for name in fields if f"`{name}" not in page and f"spec.{name}" not in page]


def test_generated_files_are_those_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err


def test_make_alone_lists_every_target() -> None:
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    wanted = (
        "cluster",
        "images",
        "install",
        "demo",
        "test",
        "test-fast",
        "bench",
        "generate",
        "lint",
        "lock",
        "cluster-down",
    )
    assert not [target for target in wanted if f"make {target} " not in listed]
