"""Where a dataset's rows come from: the manifest itself, files, or a system that is asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from trainyard.api.run.dataset import Dataset
from trainyard.trainer.context import RunContext
from trainyard.trainer.data.collect.plain import plain_text
from trainyard.trainer.data.collect.run import collected, source_of
from trainyard.trainer.data.readers import read_inline_text, read_rows
from trainyard.trainer.data.row import Fault, Row
from trainyard.trainer.data.select import columns_of
from trainyard.trainer.data.sources import SourceFile, fetch, format_of

CODE_LIMIT = 1 << 20
"""Bytes of a source file that examples are made from; a larger one is hardly written by hand."""
LANGUAGES = {
    ".py": "python",
    ".cs": "csharp",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".json": "json",
    ".go": "go",
    ".sh": "shell",
}


def rows_of(dataset: Dataset, context: RunContext, folder: Path) -> Iterator[Row | Fault]:
    """All rows of a dataset in order. `folder` is for what has to be downloaded.

    Raises:
        UserError: the source is not there, refuses, or does not answer.
    """
    if dataset.inline is not None:
        place = f"dataset {dataset.name}"
        if dataset.inline.text is not None:
            yield from read_inline_text(dataset.inline.text, place)
        for number, record in enumerate(dataset.inline.records or (), start=1):
            yield Row(place, number, record)
        return
    if source_of(dataset) is not None:
        for number, record in enumerate(collected(dataset, context), start=1):
            yield Row(f"dataset {dataset.name}", number, record)
        return
    for file in fetch(dataset, volumes=context.volumes_dir, secrets=context.secrets_dir, staging=folder):
        file_format = format_of(file, dataset.file_format)
        assert file_format is not None, "fetch returns readable files only"
        if dataset.generate is not None and file_format == "Text":
            yield from _whole_file(file)
        else:
            yield from read_rows(file, file_format, columns_of(dataset))


def as_text(row: Row, dataset: Dataset) -> Row:
    """A collected record as plain text, where that is what the dataset is made of."""
    if dataset.record_format != "Text" or source_of(dataset) is None or (text := plain_text(row.value)) is None:
        return row
    return Row(row.source, row.line, {"text": text})


def _whole_file(file: SourceFile) -> Iterator[Row]:
    """A source file as a code collector would give it."""
    if file.path.stat().st_size > CODE_LIMIT:
        return
    text = file.path.read_bytes().decode("utf-8", "replace")
    language = LANGUAGES.get(PurePosixPath(file.name).suffix.lower(), "text")
    yield Row(file.name, 1, {"kind": "code", "path": file.name, "language": language, "text": text})
