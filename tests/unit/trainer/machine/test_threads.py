"""CPUs from affinity and cgroup quota, in both versions of cgroups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainyard.trainer.machine import threads


@pytest.fixture
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def write(root: Path, name: str, text: str) -> None:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(
    ("quota", "expected"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8), ("6400000 100000", 8)],
)
def test_version_2(tmp_path: Path, quota: str, expected: int) -> None:
    write(tmp_path, "proc", "0::/\n")
    write(tmp_path, "cgroup/cpu.max", quota)
    assert threads.available(cgroup=tmp_path / "cgroup", membership=tmp_path / "proc") == expected


@pytest.mark.usefixtures("eight_cpus")
@pytest.mark.parametrize(("quota", "expected"), [("300000", 3), ("-1", 8), ("10000", 1)])
def test_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    write(tmp_path, "proc", "4:memory:/x\n1:cpu,cpuacct:/pod\n")
    write(tmp_path, "cgroup/cpu/cpu.cfs_quota_us", quota)
    write(tmp_path, "cgroup/cpu/cpu.cfs_period_us", "100000")
    assert threads.available(cgroup=tmp_path / "cgroup", membership=tmp_path / "proc") == expected


@pytest.mark.usefixtures("eight_cpus")
def test_the_tightest_group_on_the_way_up_counts(tmp_path: Path) -> None:
    write(tmp_path, "proc", "0::/kubepods/pod1/c1\n")
    write(tmp_path, "cgroup/kubepods/pod1/cpu.max", "200000 100000")
    write(tmp_path, "cgroup/kubepods/pod1/c1/cpu.max", "max 100000")
    assert threads.available(cgroup=tmp_path / "cgroup", membership=tmp_path / "proc") == 2


@pytest.mark.usefixtures("eight_cpus")
def test_without_cgroups(tmp_path: Path) -> None:
    assert threads.available(cgroup=tmp_path / "none", membership=tmp_path / "none") == 8


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*threads.VARIABLES, threads.SPIN_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    threads.apply(2)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["MKL_NUM_THREADS"] == "2"
    assert os.environ["GOMP_SPINCOUNT"] == "1000"
