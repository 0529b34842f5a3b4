"""Make the sources in the image importable, and the version known to `importlib.metadata`. Runs while the image is built.

An ordinary install would bring the trainer's packages along, which this image must not have.
"""

import sysconfig
import tomllib
from pathlib import Path

HOME = Path("/opt/trainyard")


def main() -> None:
    project = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    packages = Path(sysconfig.get_path("purelib"))
    (packages / f"{name}.pth").write_text(f"{HOME / 'src'}\n")
    described = packages / f"{name}-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


if __name__ == "__main__":
    main()
