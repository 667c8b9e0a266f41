"""`load_examples` and `load_queries`: examples and unlabelled inputs from files, folders, data sets or the Hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd
from datasets import Dataset, load_dataset
from datasets.exceptions import DatasetNotFoundError

from ..hub.repository import looks_like_path, what_was_meant
from .conform import conform
from .files import READER_OF, READERS, expand, files_of, is_readable
from .inputs import InputTypeError, as_dataset, from_inputs
from .schema import ExampleError

logger = logging.getLogger(__name__)

Source: TypeAlias = str | Path | Dataset | pd.DataFrame | Mapping[str, Sequence[Any]] | Sequence[str | Path]


def load_examples(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    split: str | None = None,
    drop_invalid: bool = False,
    **load_dataset_kwargs: Any,
) -> Dataset:
    """Reads labelled examples of one or many tasks.

    Args:
        source: a `Dataset`, DataFrame or mapping of columns; one or several paths or glob patterns of parquet, jsonl, json or csv files (json also as
            the authors' triples `[input, [outputs], "task|split|template|#n"]`, or as a task of Natural Instructions); a
            folder of such files; or the name of a data set on the Hub.
        columns: where the schema's columns are in the source, e.g. `{"input": "question", "references": "answers"}`.
        task: the task of every example, if the source has no such column.
        split: the split to read of a data set on the Hub, "train" by default; whatever else is read has none.
        drop_invalid: leave out, with a warning, the rows that would raise.
        load_dataset_kwargs: passed to `datasets.load_dataset` for a data set on the Hub (`name`, `revision`, ...).

    Returns:
        A `Dataset` with the columns `id`, `task`, `template`, `input`, `references` and, if the source has it,
        `choices`. A missing `id` is made of the task and the row number, a missing `template` is empty.

    Raises:
        ExampleError: a column is missing or of another type, an input is empty, there are no references, or ids
            repeat.
        FileNotFoundError: a path leads nowhere.
        ValueError: `split`, or an argument for the Hub, is given with a source that is not on the Hub.
    """
    datasets = _read(as_dataset(source), split, load_dataset_kwargs)
    return conform(datasets, columns or {}, task or "unknown", labelled=True, drop_invalid=drop_invalid)


def load_queries(
    source: Source | Iterable[str],
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    split: str | None = None,
    drop_invalid: bool = False,
    **load_dataset_kwargs: Any,
) -> Dataset:
    """Reads the unlabelled inputs of an unseen task.

    Takes what [`load_examples`] takes, `.txt` files with one input a line (blank lines are passed over), and strings in a list,
    tuple, generator, array, Series or column, which are then the inputs themselves. Labels are not for the method to see: they are dropped with a
    warning.
    """
    source = as_dataset(source)
    if isinstance(source, str) and not expand(source) and not is_readable(source):
        if not source.strip():
            raise ExampleError(
                "Expected a list of inputs or a file, found an empty text. Pass a list of about sixteen inputs."
            )
        if os.path.exists(source):
            files_of(source)  # which says what is wrong with it
        if len(source) > 255 or len(source.split()) > 1:
            raise ExampleError(
                f"Expected a list of inputs or a file, found one text ({source[:40]!r}...), and no file or folder of that name. Pass "
                "`[text]`."
            )
    elif not isinstance(source, str | Path | Dataset | Mapping) and not _are_paths(source):
        source = from_inputs(source)
    datasets = _read(source, split, load_dataset_kwargs)
    return conform(datasets, columns or {}, task or "unseen", labelled=False, drop_invalid=drop_invalid)


def _are_paths(source: Any) -> bool:
    """Whether each is the name of a file, also where one is missing: its name must not become an input."""
    return (
        isinstance(source, list | tuple)
        and bool(source)
        and all(
            isinstance(item, Path)
            or (isinstance(item, str) and is_readable(item) and (len(item.split()) == 1 or bool(expand(item))))
            for item in source
        )
    )


# ---- reading -------------------------------------------------------------------------------------------------------


def _read(source: Any, split: str | None, load_dataset_kwargs: dict[str, Any]) -> list[Dataset]:
    if isinstance(source, Dataset):
        _refuse_of_the_hub("a Dataset", split, load_dataset_kwargs)
        return [source]
    if isinstance(source, Mapping):
        raise ExampleError(
            f"Expected one `Dataset`, found a mapping with the splits {', '.join(source)}. Pass one of them, "
            f"e.g. `dataset[{next(iter(source), 'train')!r}]`."
        )
    if isinstance(source, list | tuple):
        wrong = next((item for item in source if not isinstance(item, str | Path)), None)
        if wrong is not None:
            raise InputTypeError(
                f"Expected a list of paths, found {type(wrong).__name__} in it. Pass examples as a `Dataset`, e.g. "
                "`Dataset.from_list(rows)`."
            )
        files = [path for pattern in source for path in files_of(pattern)]
        # Patterns may overlap.
        files = list({path.resolve(): path for path in files}.values())
    elif isinstance(source, str | Path):
        if isinstance(source, str) and not expand(source) and not is_readable(source):
            return [_read_hub(source, split or "train", load_dataset_kwargs)]
        files = files_of(source)
    else:
        raise ExampleError(
            f"Expected a `Dataset`, a path, a list of paths or a name on the Hub, found {type(source).__name__}."
        )
    _refuse_of_the_hub(str(files[0]), split, load_dataset_kwargs)
    datasets = [READER_OF[path.suffix.lower()](path) for path in files]
    names = set(datasets[0].column_names)
    for dataset, path in zip(datasets, files, strict=True):
        if set(dataset.column_names) != names:
            raise ExampleError(
                f"Expected the same columns in every file, found {sorted(names)} in {files[0]} and "
                f"{sorted(dataset.column_names)} in {path}. Read them one by one and concatenate the results."
            )
    return datasets


def _refuse_of_the_hub(found: str, split: str | None, load_dataset_kwargs: Mapping[str, Any]) -> None:
    """Refuses what would be ignored: all of a file or a data set is read, whichever split it was meant to be."""
    given = [*(["split"] if split is not None else []), *load_dataset_kwargs]
    if given:
        raise ValueError(
            f"Expected `{'`, `'.join(given)}` beside the name of a data set on the Hub, found {found}, of which all rows are read. Leave "
            "that out, and name the file of a split, or pass `dataset[split]`."
        )


def _read_hub(name: str, split: str, load_dataset_kwargs: dict[str, Any]) -> Dataset:
    if os.path.exists(name):
        files_of(name)  # which says what is wrong with it
    if looks_like_path(name):
        raise FileNotFoundError(
            f"No file or folder at {name}, and this is no name of a data set on the Hub. Expected a file, a folder or a pattern of "
            f"{', '.join(READERS)}.{what_was_meant(name)}"
        )
    if os.path.dirname(name) and os.path.isdir(os.path.dirname(name)):
        raise FileNotFoundError(
            f"No file or folder at {name}, though the folder {os.path.dirname(name)} is here. Check the path; a data set on the Hub "
            f"of that name can be passed as `load_dataset({name!r}, split={split!r})`."
        )
    try:
        return load_dataset(name, split=split, **load_dataset_kwargs)
    except (DatasetNotFoundError, ConnectionError) as error:
        kind = ConnectionError if isinstance(error, ConnectionError) else FileNotFoundError
        raise kind(
            f"No file or folder at {name} in {Path.cwd()}, and no data set of this name could be had from the Hub: {error}. Give the "
            "path of a file or folder, or check the name."
        ) from error
