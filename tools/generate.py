"""Write what is derived from the models: CRDs, the chart's copy of them, and the reference pages.

`--check` writes nothing and fails if a file in the repository differs from what would be written, so that a change of a
model cannot land without its consequences.
"""

import sys
from pathlib import Path

import admission
import messages
import reference
from trainyard.api import crd

ROOT = Path(__file__).resolve().parents[1]
CRD_FOLDERS = ("crds", "charts/trainyard/files/crds")
ADMISSION_FOLDER = "charts/trainyard/files/admission"


def outputs() -> dict[str, str]:
    """Path in the repository to content."""
    crds = crd.files()
    return {
        **{f"{folder}/{name}": text for folder in CRD_FOLDERS for name, text in crds.items()},
        **{f"{ADMISSION_FOLDER}/{name}": text for name, text in admission.outputs().items()},
        "docs/use/api.md": reference.api_page(),
        "docs/use/messages.md": messages.messages_page(ROOT),
        "docs/use/settings.md": reference.settings_page(),
        "docs/use/values.md": reference.values_page(ROOT / "charts/trainyard"),
    }


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print(f"usage: generate.py [--check], not {' '.join(arguments)}", file=sys.stderr)
        return 2
    stale = [
        path for path, text in outputs().items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text
    ]
    if arguments:
        for path in stale:
            print(f"{path} is not what the models say: run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(outputs()[path])
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
