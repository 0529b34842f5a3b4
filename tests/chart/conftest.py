"""helm, and what it renders."""

import os
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import ROOT

CHART = ROOT / "charts/trainyard"
Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    ours = Path(os.environ.get("TRAINYARD_CLUSTER_DIR", ROOT / ".cluster")) / "bin/helm"
    program = str(ours) if ours.exists() else shutil.which("helm")
    if program is None:
        pytest.skip("helm is not here; `make cluster` builds one")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=120)

    return call


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """The chart's objects with these values, each `key=value` as for --set. Rendered once: tests only read them."""

    @cache
    def call(*values: str, release: str = "trainyard", namespace: str = "trainyard-system") -> Objects:
        settings = [word for value in values for word in ("--set", value)]
        result = helm("template", release, str(CHART), "--namespace", namespace, *settings)
        assert result.returncode == 0, result.stderr
        return [document for document in yaml.load_all(result.stdout, Loader=yaml.CSafeLoader) if document]

    return call


def of_kind(objects: Objects, kind: str) -> Objects:
    return [o for o in objects if o["kind"] == kind]


def one(objects: Objects, kind: str) -> dict[str, Any]:
    (found,) = of_kind(objects, kind)
    return found
