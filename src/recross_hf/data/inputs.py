"""Inputs of any type that holds texts: lists, columns, arrays, tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from datasets import Dataset, IterableDataset

from .conversations import Conversation, columns_of, conversation, is_conversation, texts_of
from .schema import MESSAGES, ExampleError


def from_inputs(inputs: Any) -> Dataset:
    """Inputs of any type that [`input_texts`] takes, as a data set with the column "input"."""
    columns, features = columns_of(input_texts(inputs))
    return Dataset.from_dict(columns, features=features)


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


def one_or_many(inputs: Any) -> tuple[list[str], bool]:
    """Inputs as texts, and whether they are one: a string, the turns of a conversation, or a row with either.

    Raises:
        ExampleError: A table has no column "input", or a text is none that UTF-8 can hold.
        InputTypeError: It is anything else that [`input_texts`] does not take.
    """
    if isinstance(inputs, Mapping) and isinstance(inputs.get("input"), str):
        inputs = texts_of({name: [value] for name, value in inputs.items()})[0]  # a row of a data set
    elif isinstance(inputs, Mapping) and is_conversation(inputs.get(MESSAGES)):
        inputs = conversation(inputs[MESSAGES])
    elif is_conversation(inputs):
        inputs = conversation(inputs)
    is_one = isinstance(inputs, str)
    return input_texts([inputs] if is_one else inputs), is_one


def input_texts(inputs: Any) -> list[str]:
    """The inputs of a list, tuple, generator, array, Series or column of strings or conversations, or of the column "input" of a table.

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
        source = texts_of(source)
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
    if is_conversation(texts):
        raise InputTypeError(
            "Expected a list of inputs, found the turns of one conversation. Pass a list of conversations: `[messages]`."
        )
    texts = [conversation(text) if is_conversation(text) else text for text in texts]
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
    # An array's texts are of NumPy's type.
    return [text if isinstance(text, Conversation) else str(text) for text in texts]
