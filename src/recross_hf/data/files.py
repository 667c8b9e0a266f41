"""Files of examples, parquet, jsonl, json, csv or txt, read as `Dataset`s or as streams of records."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
from datasets import Dataset

from ..core.files import matching, read_parquet
from .inputs import from_inputs
from .schema import ExampleError
from .text_encoding import check_is_data
from .text_files import columns_of_records, csv_records, json_records, txt_lines

READERS = (".parquet", ".jsonl", ".json", ".csv", ".txt")


def expand(pattern: str | Path) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, sorted; there may be none."""
    if not str(pattern).strip():
        return []  # `Path("")` is the current folder
    path = Path(pattern)
    if not os.path.exists(path):  # of a text that is longer than any path, too
        path = Path(os.path.expanduser(pattern))
    if os.path.isdir(path):
        return sorted(child for child in path.rglob("*") if is_readable(child) and not _is_hidden(child, path))
    if os.path.isfile(path):
        return [path]
    return [found for found in matching(path) if os.path.isfile(found)]


def is_readable(path: str | Path) -> bool:
    """Whether the ending of a name is that of a file that can be read, in small or capital letters."""
    return str(path).lower().endswith(READERS)


def _is_hidden(path: Path, folder: Path) -> bool:
    """Copies of what an editor has open and what a system notes of a file: beside the file itself, rows would come twice."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def files_of(pattern: str | Path) -> list[Path]:
    """The files that a path, a folder or a pattern stands for; at least one.

    Raises:
        ExampleError: one is of a kind that cannot be read.
        FileNotFoundError: there is none.
    """
    files = expand(pattern)
    if not files:
        raise FileNotFoundError(
            f"No file at {pattern}. Expected a file, a folder or a pattern of {', '.join(READERS)}."
        )
    for path in files:
        if path.name in ("dataset_info.json", "state.json") and path.with_name("state.json").is_file():
            raise ExampleError(
                f"Expected files of examples, found what `Dataset.save_to_disk` wrote in {path.parent}. Pass "
                f"`datasets.load_from_disk({str(path.parent)!r})`."
            )
        if not is_readable(path):
            raise ExampleError(
                f"Expected a file that ends in {', '.join(READERS)}, found {path}. Unpack it, or save it as one of them."
            )
    return files


def _read_parquet(path: Path) -> Dataset:
    with path.open("rb") as file:
        check_is_data(file.read(64), path)
    try:
        return read_parquet(path)
    except ValueError as error:
        raise ExampleError(str(error)) from error


def _read_csv(path: Path) -> Dataset:
    rows = list(csv_records(path))
    if not rows:
        raise ExampleError(f"Expected examples, found no row in {path}.")
    return Dataset.from_dict({name: [row[name] for row in rows] for name in rows[0]})


def _read_txt(path: Path) -> Dataset:
    lines = txt_lines(path)
    if lines and lines[0].lower().startswith(("<!doctype html", "<html")):
        raise ExampleError(f"Expected an input a line in {path}, found a page of HTML. Download the file itself.")
    return from_inputs(lines)


def _read_json(path: Path) -> Dataset:
    """Objects, the authors' triples or Natural Instructions' instances.

    Values keep the types that JSON gives them; the reader of `datasets` would make a date of a text that looks like one.
    """
    records = list(json_records(path))
    if not records:
        raise ExampleError(f"Expected examples, found no record in {path}.")
    try:
        return Dataset.from_dict(columns_of_records(records, path))
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ExampleError(f"Expected values of one type in each field of {path}, found: {error}.") from error


READER_OF = {
    ".parquet": _read_parquet,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".txt": _read_txt,
}
