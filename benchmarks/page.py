"""What the live page costs: memory of the operator with many runs, first paint and weight in a browser, many open pages beside a burst.

The operator is a process of its own before an API server on loopback that is this process, so its memory and processor time are its
own; pages are a process too. No cluster. Chromium for `paint`.

    python benchmarks/page.py memory --runs 1000 --points 50
    python benchmarks/page.py paint --runs 1000
    python benchmarks/page.py readers --pages 50 --runs 300 --rounds 4
"""

import argparse
import asyncio
import base64
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.page.browser import browser
from tests.unit.controller.fake_clock import eventually
from tests.unit.controller.fake_kube import FakeKube
from tests.unit.controller.test_process import OperatorProcess

from trainyard.api.crd import training_run_crd
from trainyard.controller.reports.tokens import RunTokens

BATCH = 150
"""Points of one post."""
SETTLED_SECONDS = 8.0
"""Without a request, after which the operator is taken to have seen all runs."""

WHOLE = """new Promise((done) => {
  const there = () => { try { return %s } catch { return false } };
  const look = () => there() ? requestAnimationFrame(() => { window.whole = performance.now(); done() }) : setTimeout(look, 5);
  look();
})"""


class Bench:
    """An operator and its API server."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.kube, self.folder, self.environ = FakeKube(), folder, environ
        self.uids: dict[str, str] = {}

    async def __aenter__(self) -> "Bench":
        await self.kube.start()
        self.kube.put("customresourcedefinitions", training_run_crd())
        (self.folder / "kubeconfig").write_text(self.kube.kubeconfig())
        self.operator = OperatorProcess(self.folder / "kubeconfig", **self.environ)
        return self

    async def __aexit__(self, *failed: object) -> None:
        if self.operator.process is not None and self.operator.process.returncode is None:
            await self.operator.signal(15)
        await self.kube.stop()

    def apply(self, runs: int, *, suspended: bool) -> None:
        for number in range(runs):
            name = f"run-{number:04}"
            spec = {"image": "i", "command": ["train"], "suspend": suspended}
            made = self.kube.put("trainingruns", {"metadata": {"namespace": "team", "name": name}, "spec": spec})
            self.uids[name] = made["metadata"]["uid"]

    async def start(self) -> None:
        await (await self.operator.start()).ready()

    async def settled(self) -> None:
        """No request but for the lease for a while."""
        quiet_since, before = time.monotonic(), -1
        while time.monotonic() - quiet_since < SETTLED_SECONDS:
            now = sum(1 for request in self.kube.requests if "leases" not in request)
            if now != before:
                quiet_since, before = time.monotonic(), now
            await asyncio.sleep(0.5)

    async def report(self, points: int) -> None:
        """Each run as the lab's trainer reports it."""
        secret = self.kube.objects["secrets"]["trainyard-system", "trainyard-receiver"]["data"]["key"]
        tokens = RunTokens(base64.b64decode(secret))
        url = f"http://127.0.0.1:{self.operator.receiver}/api/training/local/metrics"
        connector = aiohttp.TCPConnector(limit=8, force_close=True)
        async with aiohttp.ClientSession(connector=connector) as http:
            for name, uid in self.uids.items():
                headers = {"Authorization": f"Bearer {tokens.for_job(('team', name), uid)}"}
                for first in range(1, points + 1, BATCH):
                    batch = [point(step) for step in range(first, min(first + BATCH, points + 1))]
                    async with http.post(url, json={"job_id": uid, "metrics": batch}, headers=headers) as answer:
                        assert answer.status == 200, await answer.text()

    def memory(self) -> float:
        """MB that are the operator's own and cannot be given back."""
        assert self.operator.process is not None
        lines = Path(f"/proc/{self.operator.process.pid}/smaps_rollup").read_text().splitlines()
        kilobytes = {line.split()[0]: int(line.split()[1]) for line in lines[1:]}
        return kilobytes["Rss:"] / 1000

    def processor(self) -> float:
        """Seconds."""
        assert self.operator.process is not None
        fields = Path(f"/proc/{self.operator.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def point(step: int) -> dict[str, Any]:
    """Eight curves."""
    return {
        "step": step, "epoch": step / 100, "train_loss": 2.0 / step, "learning_rate": 1e-4 / step, "grad_norm": 1.0 + step / 10,
        "samples_per_second": 12.5 + step, "gpu_memory_allocated_gb": 22.1 + step / 100, "gpu_utilization_percent": 90 + step / 100,
        "timestamp": f"2026-01-01T00:{step // 60 % 60:02d}:{step % 60:02d}.000Z",
    }  # fmt: skip


class Readers:
    """Open pages, as a process: each has loaded the list and listens."""

    def __init__(self, port: int, pages: int) -> None:
        self._words = (sys.executable, __file__, "listen", "--port", str(port), "--pages", str(pages))
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> "Readers":
        env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = await asyncio.create_subprocess_exec(*self._words, env=env, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"all listen\n"
        return self

    async def __aexit__(self, *failed: object) -> None:
        assert self._process is not None
        self._process.terminate()
        await self._process.wait()


async def listen(port: int, pages: int) -> None:
    open_now = 0

    async def page(http: aiohttp.ClientSession) -> None:
        nonlocal open_now
        async with http.get(f"http://127.0.0.1:{port}/api/board") as answer:
            last = (await answer.json())["id"]
        async with http.get(f"http://127.0.0.1:{port}/api/events", headers={"Last-Event-ID": last}) as answer:
            open_now += 1
            if open_now == pages:
                print("all listen", flush=True)
            async for _ in answer.content:
                pass

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as http:
        await asyncio.gather(*(page(http) for _ in range(pages)))


async def measure_memory(runs: int, points: int, folder: Path) -> None:
    found: dict[str, list[float]] = {}
    for page in ("Off", "Loopback"):
        async with Bench(folder, TRAINYARD_PAGE=page) as bench:
            bench.apply(runs, suspended=True)
            await bench.start()
            await bench.settled()
            figures = [bench.memory()]
            await bench.report(points)
            await bench.settled()
            figures.append(bench.memory())
            if page == "Loopback":
                async with Readers(bench.operator.page, 1):
                    figures.append(bench.memory())
                async with Readers(bench.operator.page, 50):
                    figures.append(bench.memory())
            found[page] = figures
            print(f"page {page}: " + ", ".join(f"{figure:.1f} MB" for figure in figures), flush=True)
    off, on = found["Off"], found["Loopback"]
    print(
        f"{runs} runs: the page +{on[0] - off[0]:.1f} MB, with {points} points each +{on[1] - off[0]:.1f} MB over neither page nor points"
    )
    print(f"  one reader +{on[2] - on[1]:.1f} MB, fifty +{on[3] - on[1]:.1f} MB")


async def measure_paint(runs: int, points: int, folder: Path, pictures: str) -> None:
    async with Bench(folder) as bench:
        bench.apply(runs, suspended=True)
        await bench.start()
        await bench.settled()
        await bench.report(points)
        origin = f"http://127.0.0.1:{bench.operator.page}"
        async with browser() as program:
            for path, ready in (
                ("/", f"document.querySelectorAll('tbody tr').length >= {runs}"),
                ("/runs/team/run-0001", "document.querySelectorAll('canvas').length >= 3"),
            ):
                paints, readies, weights = [], [], []
                for _ in range(7):
                    async with program.tab() as tab:
                        await tab.size(1280, 900)
                        await tab.call("Network.setCacheDisabled", cacheDisabled=True)
                        await tab.open(origin + path)
                        await tab.run(WHOLE % ready)
                        paints.append(
                            await tab.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
                        )
                        readies.append(await tab.run("whole"))
                        weights.append(
                            await tab.run(
                                "[...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')]"
                                ".filter((e) => !e.name.includes('/api/')).reduce((sum, e) => sum + e.transferSize, 0)"
                            )
                        )
                        if pictures and len(paints) == 1:
                            for dark in (False, True):
                                await tab.dark(dark)
                                await asyncio.sleep(0.3)
                                name = (
                                    f"{path.strip('/').replace('/', '-') or 'list'}-{'dark' if dark else 'light'}.png"
                                )
                                (Path(pictures) / name).write_bytes(await tab.picture())
                print(
                    f"{path}: first paint {statistics.median(paints):.0f} ms ({min(paints):.0f} to {max(paints):.0f}), "
                    f"all of it {statistics.median(readies):.0f} ms, files {max(weights) / 1000:.0f} kB",
                    flush=True,
                )


async def burst(runs: int, pages: int, folder: Path) -> tuple[float, float]:
    """Processor seconds of the operator, and seconds, until each run has its Job and its status."""
    async with Bench(folder) as bench:
        await bench.start()
        await bench.settled()
        async with Readers(bench.operator.page, pages) if pages else Bench(folder) as _:
            used, began = bench.processor(), time.monotonic()
            bench.apply(runs, suspended=False)
            there = bench.kube.objects
            await eventually(
                lambda: (
                    len(there["jobs"]) >= runs
                    and all((run.get("status") or {}).get("state") for run in there["trainingruns"].values())
                ),
                300,
            )
            took = time.monotonic() - began
            await bench.settled()
            return bench.processor() - used, took


async def measure_readers(runs: int, pages: int, rounds: int, folder: Path) -> None:
    ratios, walls = [], []
    for number in range(rounds):
        # The one that comes second has no advantage: the order changes.
        order = (0, pages) if number % 2 == 0 else (pages, 0)
        found = {count: await burst(runs, count, folder) for count in order}
        ratios.append(found[pages][0] / found[0][0])
        walls.append(found[pages][1] / found[0][1])
        print(
            f"burst of {runs}: alone {found[0][0]:.2f} s of processor in {found[0][1]:.1f} s, with {pages} pages "
            f"{found[pages][0]:.2f} s in {found[pages][1]:.1f} s: {ratios[-1]:.3f}",
            flush=True,
        )
    print(
        f"{pages} open pages: {statistics.median(ratios):.3f} of the processor time, {statistics.median(walls):.3f} of the time"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("memory", "paint", "readers", "listen"))
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--pages", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--pictures", default="", help="folder for screenshots of `paint`")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        match given.what:
            case "memory":
                asyncio.run(measure_memory(given.runs, given.points, folder))
            case "paint":
                asyncio.run(measure_paint(given.runs, given.points, folder, given.pictures))
            case "readers":
                asyncio.run(measure_readers(given.runs, given.pages, given.rounds, folder))
            case "listen":
                asyncio.run(listen(given.port, given.pages))


if __name__ == "__main__":
    main()
