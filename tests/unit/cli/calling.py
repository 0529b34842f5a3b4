"""The program, called inside the test's own process."""

from typer.testing import CliRunner, Result

from trainyard.cli.main import program


def call(*words: str, stdin: str | None = None) -> Result:
    """What the program has printed and how it ended. `words` are those after its name."""
    return CliRunner().invoke(program(words), words, input=stdin)
