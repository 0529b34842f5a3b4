"""GGUF and Ollama exports killed with SIGKILL at random moments, then done again: the same files, one model of the same digest."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import urllib3
import yaml

from tests.servers.ollama_server import ollama
from tests.servers.test_exported import manifest
from trainyard.api import names
from trainyard.api.manifest import read_run
from trainyard.trainer.local import link_volumes, run_local, step_environment

pytestmark = [pytest.mark.servers, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("TRAINYARD_KILLS", "4"))
EXPORTS = ("file", "serve")
HTTP = urllib3.PoolManager(retries=False)


@dataclass
class Exported:
    """A trained run whose exports are done again and again."""

    work: Path
    url: str
    environment: dict[str, str]

    def forget(self) -> None:
        """As if nothing had been exported."""
        shutil.rmtree(self.work / "exports", ignore_errors=True)
        for model in self.models():
            HTTP.request("DELETE", f"{self.url}/api/delete", body=json.dumps({"model": model}))

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """The export's process."""
        words = [sys.executable, "-m", "trainyard.trainer", "export", "--name", name]
        log = self.work / "logs" / f"export-{name}.json"
        environment = {**self.environment, names.ENV_STEP: f"export-{name}", names.ENV_TERMINATION_LOG: str(log)}
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)

    def whole(self) -> None:
        """Both to their ends."""
        for name in EXPORTS:
            assert self.start(name).wait(600) == 0, name

    def killed(self, after: float) -> str | None:
        """Which of them was in the middle of it; it and those behind it are not done."""
        end = time.monotonic() + after
        for name in EXPORTS:
            process = self.start(name)
            try:
                process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                return name
        return None

    def models(self) -> dict[str, str]:
        """In the server: name and digest."""
        found = json.loads(HTTP.request("GET", f"{self.url}/api/tags").data)["models"]
        return {one["name"]: one["digest"] for one in found}

    def left(self) -> dict[str, str]:
        """Digests of all that is there, under names that do not depend on when."""
        files = {
            path.relative_to(self.work).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in self.work.rglob("*.gguf")
        }
        return {**files, **self.models()}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp("run")
    (folder / "ollama").mkdir()
    with ollama(folder / "ollama") as server:
        wanted = manifest(server.url)
        file, work = folder / "run.yaml", folder / "work"
        plain = {key: value for key, value in wanted["spec"].items() if key != "exports"}
        file.write_text(yaml.safe_dump({**wanted, "spec": plain}))
        assert run_local(file, work, {}) == 0
        wanted["spec"]["exports"] = [one for one in wanted["spec"]["exports"] if one["name"] in EXPORTS]
        run = read_run(yaml.safe_dump(wanted))
        yield Exported(work, server.url, step_environment(run, work, link_volumes(run, work, {}), None))


def test_what_is_there_after_a_kill_and_another_try_is_what_was_there_without(exported: Exported) -> None:
    started = time.monotonic()
    exported.whole()
    seconds, undisturbed = time.monotonic() - started, exported.left()
    assert len(undisturbed) == 3, "two files and a model"
    chance, hit = random.Random(7), []
    for number in range(KILLS):
        exported.forget()
        hit.append(exported.killed(seconds * (number + chance.random()) / KILLS))
        exported.whole()
        assert exported.left() == undisturbed, hit
        assert not list(exported.work.rglob(".tmp-*")), "nothing half is left lying"
    print(f"{seconds:.1f} s undisturbed; killed in {', '.join(map(str, hit))}")
    assert sum(one is not None for one in hit) >= KILLS // 2
