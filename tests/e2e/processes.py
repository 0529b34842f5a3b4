"""The processes behind a pod, as this machine sees them, and their violent end.

A container's processes are ordinary processes of the machine; the kernel says in /proc/<pid>/cgroup to which container
each belongs. Only processes of one given container are ever killed, and only the first one: the kernel then ends the
rest of that container.
"""

import os
import signal
from pathlib import Path

from tests.e2e.kube import Found


def container_id(pod: Found, container: str) -> str | None:
    """The runtime's id of a running container of the pod."""
    for status in pod.get("status", {}).get("containerStatuses", []):
        if status["name"] == container and "running" in status.get("state", {}):
            return str(status["containerID"]).rpartition("/")[2]
    return None


def main_process(container: str) -> int | None:
    """Pid, on this machine, of process 1 of the container with this runtime id."""
    for place in Path("/proc").iterdir():
        if not place.name.isdecimal():
            continue
        try:
            if container not in (place / "cgroup").read_text():
                continue
            pids = next(line for line in (place / "status").read_text().splitlines() if line.startswith("NSpid:"))
        except (OSError, StopIteration):
            continue  # it has just ended
        if pids.split()[-1] == "1":
            return int(place.name)
    return None


def kill(pod: Found, container: str) -> bool:
    """SIGKILL to process 1 of a container; False where it does not run any more."""
    identity = container_id(pod, container)
    pid = main_process(identity) if identity else None
    if pid is None:
        return False
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
