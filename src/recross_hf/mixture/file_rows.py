"""Rows of a task from parquet, csv and json files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..data.files import files_of
from ..data.text_files import csv_records, json_records
from .rows import BATCH_ROWS, RowBatch, Rows, batched
from .sources import SourceError, TaskSource


def file_rows(source: TaskSource) -> Rows:
    """The rows of a task's files: parquet, csv, json or jsonl.

    Raises:
        SourceError: A file is no table.
        FileNotFoundError: The path leads nowhere.
        ExampleError: A record of JSON is no mapping.
    """
    paths = files_of(source.files or "")
    version = " ".join(map(_fingerprint, paths))
    if all(path.suffix == ".parquet" for path in paths):
        try:
            footers = [pq.read_metadata(path) for path in paths]
        except pa.ArrowInvalid as error:
            raise SourceError(f"Task {source.task}: expected parquet in {source.files}, found: {error}.") from error

        def batches() -> Iterator[RowBatch]:
            first = 0
            for path in paths:
                # Without a buffer a row group is read as a whole, and row groups can be the whole file.
                with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                    for batch in file.iter_batches(BATCH_ROWS):
                        yield RowBatch(pa.Table.from_batches([batch]), first)
                        first += len(batch)

        names = footers[0].schema.to_arrow_schema().names
        num_rows = sum(footer.num_rows for footer in footers)
        return Rows(num_rows, tuple(names), batches, version, source.license, columns=source.columns)

    def records() -> Iterator[dict[str, Any]]:
        for path in paths:
            match path.suffix:
                case ".json" | ".jsonl":
                    yield from json_records(path, whole_characters=False)
                case ".csv":
                    yield from csv_records(path)
                case ".parquet":
                    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
                        yield from batch.to_pylist()
                case _:
                    raise SourceError(
                        f"Task {source.task}: expected parquet, json, jsonl or csv, found {path}: it has no answers."
                    )

    num_rows, names = 0, []
    for row in records():  # this reads all of them once, to count them
        names = names or list(row)
        num_rows += 1
    # Objects of JSON need not have the same names.
    names = names if all(path.suffix == ".csv" for path in paths) else []
    return Rows(num_rows, tuple(names), lambda: batched(records()), version, source.license, columns=source.columns)


def _fingerprint(path: Path) -> str:
    """A hash of a file's size and of its two ends: the footer of parquet is at one of them, and a large file is not read for it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = hashlib.sha256(str(size).encode() + file.read(1 << 16))
        file.seek(max(0, size - (1 << 16)))
        digest.update(file.read())
    return digest.hexdigest()[:16]
