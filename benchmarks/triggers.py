"""What looks at the sources of triggers cost: time of one and of many at once, and memory of the operator and beside it.

    python benchmarks/triggers.py --look 20 --many 500

The sources are servers on loopback in a process of their own: Prometheus' interface, a file of lines, a git repository
behind git's own HTTP backend, a file of 64 MiB without an end of line, and a repository whose small pack unpacks to 200 MB.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiohttp import web

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.unit.controller.schedules.git_server import GitServer, commit, git  # noqa: E402

from trainyard.api.schedule.triggers import Trigger  # noqa: E402
from trainyard.controller import app  # noqa: E402  what the operator has loaded
from trainyard.controller.clock import SystemClock  # noqa: E402
from trainyard.controller.schedules.triggers.addresses import Rules  # noqa: E402
from trainyard.controller.schedules.triggers.looks import Looks  # noqa: E402
from trainyard.controller.schedules.triggers.poll import Poller  # noqa: E402

NAMESPACES = 20


async def answer(request: web.Request) -> web.StreamResponse:
    """One of the sources."""
    if request.path == "/line":
        response = web.StreamResponse(headers={"Content-Length": str(64 * 2**20)})
        await response.prepare(request)
        for _ in range(64):
            await response.write(b"x" * 2**20)
        return response
    if request.path == "/lines":
        return web.Response(body=b"".join(b"line %d, %d bytes or so\n" % (n, n * n) for n in range(20_000)))
    value = {"metric": {}, "value": [0, "0.5"]}
    return web.json_response({"status": "success", "data": {"resultType": "vector", "result": [value]}})


async def serve(folder: Path) -> None:
    """Until the end of the process; says its port first."""
    repositories = GitServer(folder)

    async def handler(request: web.Request) -> web.StreamResponse:
        return await (repositories(request) if ".git" in request.path else answer(request))

    application = web.Application(client_max_size=2**26)
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def repositories(folder: Path) -> None:
    """`small`, and `bomb` with a file of 200 MB of zeros."""
    for name in ("small", "bomb"):
        git(folder, "init", "--quiet", "-b", "main", name)
    (folder / "bomb/zeros").write_bytes(bytes(200_000_000))
    commit(folder / "bomb", {"README.md": "x"})
    commit(folder / "small", {f"docs/{n}.md": str(n) for n in range(200)})


def memory(pid: int | str = "self") -> dict[str, str]:
    """Of a process, in MB."""
    texts = [Path(f"/proc/{pid}/{name}").read_text() for name in ("status", "smaps_rollup")]
    lines = dict(line.split(":", 1) for text in texts for line in text.splitlines() if ":" in line)
    return {name: f"{int(lines[name].split()[0]) / 1000:.1f}" for name in ("VmHWM", "VmRSS", "Pss", "Private_Dirty")}


class Bench:
    """Schedules whose triggers are looked at."""

    def __init__(self, base: str) -> None:
        self.looks, self.told, self.numbers = Looks(memory=20 * 2**20), asyncio.Queue[Any](), itertools.count()
        cluster: Any = SimpleNamespace()
        rules = Rules(allow_loopback=True)
        self.poller = Poller(cluster, taker=self.looks, rules=rules, clock=SystemClock(), notify=self.told.put_nowait)
        compared = {"query": "x", "comparison": "LessThan", "threshold": 1}
        self.sources: dict[str, dict[str, Any]] = {
            "prometheus": {"prometheus": {"url": base, **compared}},
            "dataset": {"dataset": {"url": f"{base}/lines"}},
            "gitPath": {"gitPath": {"url": f"{base}/small/.git", "path": "docs"}},
            "a line of 64 MiB": {"dataset": {"url": f"{base}/line"}},
            "a pack that unpacks to 200 MB": {"gitPath": {"url": f"{base}/bomb/.git", "path": "README.md"}},
        }

    async def look(self, name: str, count: int = 1) -> float:
        """Have so many schedules look at this source at once; seconds until all have."""
        trigger = Trigger.model_validate({"name": "t", **self.sources[name]})
        made = []
        for number in itertools.islice(self.numbers, count):
            fields = {"uid": f"u{number}", "name": f"s{number}", "namespace": f"n{number % NAMESPACES}"}
            made.append(SimpleNamespace(**fields, spec=SimpleNamespace(triggers=[trigger])))
        begun = time.perf_counter()
        for schedule in made:
            self.poller.request(schedule, "t")  # type: ignore[arg-type]
        for _ in made:
            await self.told.get()
        took = time.perf_counter() - begun
        faults = {look.error for schedule in made for look in self.poller.looks(schedule).values()}  # type: ignore[arg-type]
        assert faults == {None}, faults
        return took

    def server(self) -> int:
        """The process that makes looks."""
        assert self.looks._server is not None
        return self.looks._server._process.pid

    def spent(self) -> float:
        """Seconds of processor of the operator, that process and all looks so far."""
        words = Path(f"/proc/{self.server()}/stat").read_text().rpartition(")")[2].split()
        ticks = sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")
        return ticks + time.process_time()


async def measure(base: str, *, look: int, many: int) -> None:
    """Print the figures, one JSON object a line."""
    bench = Bench(base)
    before = memory()
    print(
        json.dumps(
            {"first look, ms": round(await bench.look("prometheus") * 1000), "beside it": memory(bench.server())}
        )
    )
    for name in ("prometheus", "dataset", "gitPath"):
        await bench.look(name)
        times = [await bench.look(name) * 1000 for _ in range(look)]
        print(json.dumps({"source": name, "ms": round(statistics.median(times), 1), "longest": round(max(times), 1)}))
    for name in ("a line of 64 MiB", "a pack that unpacks to 200 MB"):
        print(json.dumps({"source": name, "ms": round(await bench.look(name) * 1000)}))
    spent, took = bench.spent(), await bench.look("prometheus", many)
    print(json.dumps({"at once": many, "seconds": round(took, 1), "cpu": round(bench.spent() - spent, 1)}))
    print(json.dumps({"operator before": before, "after": memory(), "beside it": memory(bench.server())}))
    await bench.poller.close()
    await bench.looks.close()


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--look", type=int, default=20)
    parser.add_argument("--many", type=int, default=500)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.serve))
        return
    assert app is not None
    with tempfile.TemporaryDirectory() as folder:
        repositories(Path(folder))
        command = [sys.executable, __file__, "--serve", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sources:
            assert sources.stdout is not None
            try:
                port = sources.stdout.readline().strip()
                asyncio.run(measure(f"http://127.0.0.1:{port}", look=options.look, many=options.many))
            finally:
                sources.kill()


if __name__ == "__main__":
    main()
