"""`load_examples` and `load_queries`: examples and unlabelled inputs from files, folders, data sets or the Hub."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from datasets import Dataset, IterableDataset, load_dataset
from datasets.exceptions import DatasetNotFoundError

from ..hub.errors import looks_like_path
from .conform import conform
from .files import READER_OF, READERS, expand, files_of, from_inputs
from .schema import ExampleError
from .text_files import parse_list

logger = logging.getLogger(__name__)

Source = str | Path | Dataset | pd.DataFrame | Mapping[str, Sequence] | Sequence[str | Path]


def load_examples(
    source: Source,
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    split: str = "train",
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
        split: the split to read of a data set on the Hub.
        drop_invalid: leave out, with a warning, the rows that would raise.
        load_dataset_kwargs: passed to `datasets.load_dataset` for a data set on the Hub (`name`, `revision`, ...).

    Returns:
        A `Dataset` with the columns `id`, `task`, `template`, `input`, `references` and, if the source has it,
        `choices`. A missing `id` is made of the task and the row number, a missing `template` is empty.

    Raises:
        ExampleError: a column is missing or of another type, an input is empty, there are no references, or ids
            repeat.
        FileNotFoundError: a path leads nowhere.
    """
    datasets = _read(as_dataset(source), split, load_dataset_kwargs)
    return conform(datasets, columns or {}, task or "unknown", labelled=True, drop_invalid=drop_invalid)


def load_queries(
    source: Source | Iterable[str],
    *,
    columns: Mapping[str, str] | None = None,
    task: str | None = None,
    split: str = "train",
    drop_invalid: bool = False,
    **load_dataset_kwargs: Any,
) -> Dataset:
    """Reads the unlabelled inputs of an unseen task.

    Takes what [`load_examples`] takes, `.txt` files with one input a line (blank lines are passed over), and strings in a list,
    tuple, generator, array, Series or column, which are then the inputs themselves. Labels are not for the method to see: they are dropped with a
    warning.
    """
    source = as_dataset(source)
    if isinstance(source, str) and not expand(source) and not source.endswith(READERS):
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
    return (
        isinstance(source, list | tuple)
        and bool(source)
        and all(
            isinstance(item, Path) or (isinstance(item, str) and item.endswith(READERS) and expand(item))
            for item in source
        )
    )


class InputTypeError(ExampleError, TypeError):
    """Inputs of a type that no texts can be taken from."""


def as_dataset(source: Any) -> Any:
    """A mapping of columns or a pandas DataFrame as a `Dataset`; anything else as it is.

    Raises:
        ExampleError: the columns cannot be those of a data set.
    """
    if isinstance(source, Mapping) and not any(
        isinstance(value, Dataset | IterableDataset) for value in source.values()
    ):
        for name, values in source.items():
            if isinstance(values, str | bytes) or not isinstance(values, Iterable):
                raise InputTypeError(
                    f"Expected a list of values for each column of a mapping, found {type(values).__name__} for {name!r}. Pass "
                    '`{"input": [text, ...]}`, or a list of texts.'
                )
        make = partial(Dataset.from_dict, {name: list(values) for name, values in source.items()})
    elif isinstance(source, pd.DataFrame):
        make = partial(Dataset.from_pandas, source, preserve_index=False)
    else:
        return source
    try:
        return make()
    except (pa.ArrowException, UnicodeEncodeError, TypeError, ValueError) as error:
        raise ExampleError(
            f"Expected columns of one length and one type each in the {type(source).__name__}, found: {error}. Mend them, or pass a "
            "`Dataset`."
        ) from error


def input_texts(inputs: Any) -> list[str]:
    """The inputs of a list, tuple, generator, array, Series or column of strings, or of the column "input" of a table.

    Raises:
        ExampleError: a table has no such column, or a text is none that UTF-8 can hold.
        InputTypeError: it is anything else, or holds something else than strings.
    """
    source = as_dataset(inputs)
    if isinstance(source, Dataset):
        if "input" not in source.column_names:
            raise ExampleError(
                f"Expected the column 'input', found {', '.join(source.column_names) or 'none'}. Pass the column that holds the "
                "inputs, e.g. `dataset['question']`."
            )
        source = source["input"][:]
    unordered = isinstance(source, Set | Mapping | IterableDataset | str | bytes | bytearray | memoryview | Path)
    try:
        texts = None if unordered else list(iter(source))
    except TypeError:
        texts = None
    if texts is None:
        raise InputTypeError(
            f"Expected an input or a list of inputs that are strings, found {type(source).__name__}. Pass a list of strings, or a "
            "`Dataset` with the column 'input'" + (": a set has no order." if isinstance(source, Set) else ".")
        )
    wrong = [row for row, text in enumerate(texts) if not isinstance(text, str)]
    if wrong:
        raise InputTypeError(
            f"Expected inputs that are strings, found {type(texts[wrong[0]]).__name__} in row {wrong[0]} "
            f"({len(wrong)} such of {len(texts)}). Pass a list of strings, a `Dataset` or a file."
        )
    for row, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ExampleError(
                f"Expected text in row {row}, found {text[error.start]!a}, half of a surrogate pair and no character. Read the text "
                "as UTF-8."
            ) from error
    return [str(text) for text in texts]  # an array's are of NumPy's type


# ---- reading -------------------------------------------------------------------------------------------------------


def _read(source: Any, split: str, load_dataset_kwargs: dict[str, Any]) -> list[Dataset]:
    if isinstance(source, Dataset):
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
    elif isinstance(source, str | Path):
        if isinstance(source, str) and not expand(source) and not source.endswith(READERS):
            return [_read_hub(source, split, load_dataset_kwargs)]
        files = files_of(source)
    else:
        raise ExampleError(
            f"Expected a `Dataset`, a path, a list of paths or a name on the Hub, found {type(source).__name__}."
        )
    datasets = [READER_OF[path.suffix](path) for path in files]
    names = set(datasets[0].column_names)
    for dataset, path in zip(datasets, files, strict=True):
        if set(dataset.column_names) != names:
            raise ExampleError(
                f"Expected the same columns in every file, found {sorted(names)} in {files[0]} and "
                f"{sorted(dataset.column_names)} in {path}. Read them one by one and concatenate the results."
            )
    return datasets


def _read_hub(name: str, split: str, load_dataset_kwargs: dict[str, Any]) -> Dataset:
    if os.path.exists(name):
        files_of(name)  # which says what is wrong with it
    if looks_like_path(name):
        raise FileNotFoundError(
            f"No file or folder at {name}, and this is no name of a data set on the Hub. Expected a file, a folder or a pattern of "
            f"{', '.join(READERS)}."
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


def _lists_in_text(column: pa.ChunkedArray, name: str) -> list[list[str]]:
    """Cells that are lists written out. Beside JSON, plain texts may stand; what NumPy prints is told from text by the others."""
    cells, printed, plain = column.to_pylist(), None, None
    found: list[list[str]] = []
    for row, cell in enumerate(cells):
        if cell is None or cell == "":
            found.append([])
            continue
        if not _LOOKS_LIKE_A_LIST.match(cell):
            plain = (row, cell) if plain is None else plain
            found.append([cell])
            continue
        try:
            texts, is_json = parse_list(cell)
        except ValueError as error:
            raise ExampleError(
                f"Expected a list of texts in {name!r} of row {row}, found {cell[:60]!r}, which begins like one and is {error}. "
                f"{_WRITE_JSON}"
            ) from error
        found.append(texts)
        printed = (row, cell) if printed is None and not is_json else printed
    if printed is not None and plain is not None:
        raise ExampleError(
            f"Expected lists or plain texts in {name!r}, found both: {printed[1][:60]!r} in row {printed[0]} and {plain[1][:60]!r} "
            f"in row {plain[0]}. {_WRITE_JSON}"
        )
    return found


_LIKE_A_LIST = r"""^\s*\[\s*(["']|\]\s*$)"""
_LOOKS_LIKE_A_LIST = re.compile(_LIKE_A_LIST)
_WRITE_JSON = 'Write it as JSON, ["first", "second"]; one text that looks like a list as a list of one; or save as jsonl or parquet.'


_EMPTY_REFERENCE = "an empty text among the references"
# A model that is trained on an empty text learns to answer nothing, and no empty answer is ever scored as right. SQuAD v2 gives
# its unanswerable questions no references at all, which is a fault, too.
_WRITE_AN_ANSWER = "Write what the model is to answer, also where there is no answer, e.g. 'unanswerable'"
