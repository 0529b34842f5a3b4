"""Install what the trainer needs, with a CPU-only torch, into a virtual environment that exists.

Used by `make venv` and by the CPU variant of the trainer image, so that tests and cluster run the same bytes:
`requirements-cpu.lock` by hash, then the stand-ins for CUDA (see `stubs.py`).

Usage: install.py VENV [further uv arguments]     (needs uv, a C compiler and binutils)
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import stubs

LOCK = Path(__file__).resolve().parent.parent / "requirements-cpu.lock"


def main(argv: list[str]) -> int:
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 64
    python = Path(argv[1]).absolute() / "bin" / "python"
    # --no-deps: the lock is complete, and torch's own metadata would ask for the CUDA wheels again.
    install = ["uv", "pip", "install", "--python", str(python), "--no-deps", "--require-hashes", "-r", str(LOCK)]
    subprocess.run([*install, *argv[2:]], check=True)
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]
    site_packages = subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip()
    return stubs.main(["stubs.py", site_packages])


if __name__ == "__main__":
    sys.exit(main(sys.argv))
