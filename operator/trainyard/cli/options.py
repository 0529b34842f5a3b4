"""Words that mean the same in more than one verb."""

from collections.abc import Iterable

from trainyard.cli.exits import Misused


def folders_of_claims(words: Iterable[str]) -> dict[str, str]:
    """The folder that stands for each claim, from the `CLAIM=FOLDER` words of `--volume`. Raises Misused."""
    folders = {}
    for word in words:
        claim, equals, folder = word.partition("=")
        if not (claim and equals and folder):
            raise Misused(f"--volume {word!r} has not the form CLAIM=FOLDER, for example --volume data=/mnt/data")
        folders[claim] = folder
    return folders
