"""What is printed, letter by letter, kept beside the tests. `TRAINYARD_GOLDEN=write` writes it anew, to be read before it is
committed."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "printed"


def same_as(name: str, text: str) -> None:
    """The text is what it was."""
    path = FOLDER / f"{name}.txt"
    if os.environ.get("TRAINYARD_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
