"""`make bench`: the burst of TrainingRuns against the operator that is installed, with its metrics brought here.

Further words are handed on to benchmarks/burst.py, for example `--runs 200`.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import target

MEASURED = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "provisioner")


@contextmanager
def metrics_url() -> Iterator[str]:
    """The operator's metrics on a free port of this machine, as long as the block lasts."""
    words = ("port-forward", "-n", target.NAMESPACE, f"deployment/{target.RELEASE}", ":9090", "--address", "127.0.0.1")
    with subprocess.Popen(
        [target.program("kubectl"), *words], env=target.environment(), stdout=subprocess.PIPE, text=True
    ) as forward:
        try:
            assert forward.stdout is not None
            line = forward.stdout.readline()
            port = re.search(r"127\.0\.0\.1:(\d+)", line)
            if port is None:
                raise target.Refused(f"kubectl port-forward said {line!r}; is the operator installed? `make install`")
            yield f"http://127.0.0.1:{port[1]}/metrics"
        finally:
            forward.terminate()


def processes() -> dict[str, int]:
    """The local cluster's processes whose processor time a burst takes, with their ids; none in another cluster."""
    if target.cluster() != "local":
        return {}
    command = [sys.executable, str(target.ROOT / "tools/cluster"), "pids"]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return {name: found[name] for name in MEASURED if name in found}


def main(further: list[str]) -> int:
    """The exit code of the benchmark."""
    target.confirm_context()
    with metrics_url() as url:
        command = [sys.executable, str(target.ROOT / "benchmarks/burst.py"), "--metrics", url, *further]
        if pids := processes():
            command += ["--processes", ",".join(f"{name}={pid}" for name, pid in pids.items())]
        return subprocess.run(command, env=target.environment()).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except target.Refused as refused:
        sys.exit(f"bench: {refused}")
