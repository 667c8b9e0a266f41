"""The one schema of an example, and what every `Dataset` of examples allows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, LargeList, List, Value

EXAMPLE_FEATURES = Features(
    {
        "id": Value("string"),
        "task": Value("string"),
        "template": Value("string"),
        "input": Value("string"),
        "references": List(Value("string")),
        "choices": List(Value("string")),
    }
)
"""The schema of an example. Query examples have no `references`; `choices` is there only if the source has it."""

MESSAGES = "messages"
"""Column of the turns before an answer, where an input has a system prompt or several turns; null where it is one user turn."""
COLUMNS = Features({**EXAMPLE_FEATURES, MESSAGES: List({"role": Value("string"), "content": Value("string")})})
"""All columns that examples may have."""


def examples_by_task(
    examples: Dataset, *, max_examples_per_task: int | None = None, seed: int = 0
) -> dict[str, Dataset]:
    """Splits examples by task, in alphabetical order.

    Args:
        examples: Examples of the schema.
        max_examples_per_task: Number of examples that are drawn of a task with more, always the same ones.
        seed: Seed for drawing examples.
    """
    tasks = np.array(examples["task"][:], dtype=object)
    by_task: dict[str, Dataset] = {}
    for task in sorted(set(tasks)):
        rows = np.flatnonzero(tasks == task)
        if max_examples_per_task is not None and len(rows) > max_examples_per_task:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:max_examples_per_task])
        by_task[task] = examples.select(rows)
    return by_task


def check_plain(dataset: Dataset, path: Path) -> None:
    """Refuses columns that hold more than texts and numbers: those of images or sounds would open files and addresses.

    Raises:
        ExampleError: There is such a column.
    """
    for name, feature in dataset.features.items():
        inner = feature.feature if isinstance(feature, List) else feature
        if name == MESSAGES and feature == COLUMNS[MESSAGES]:
            continue
        if not isinstance(inner, Value):
            raise ExampleError(
                f"Expected columns of texts and numbers in {path}, found {name!r} of the type {type(inner).__name__}. Remove it."
            )


def check_types(dataset: Dataset) -> None:
    """Refuses columns of the schema that hold something else: the first reference of a plain text would be its first letter.

    Raises:
        ExampleError: There is such a column, or none of inputs.
        TypeError: It is no data set.
    """
    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"Expected examples as a `Dataset`, found {type(dataset).__name__}. Read them with `load_examples`, or make one with "
            "`Dataset.from_list(rows)`."
        )
    if "input" not in dataset.column_names:
        raise ExampleError(
            f"Expected the column 'input', found {', '.join(dataset.column_names) or 'none'}. Read the data with `load_examples` and "
            "say where it is, e.g. `columns={'input': 'question'}`."
        )
    turns = dataset.features.get(MESSAGES, COLUMNS[MESSAGES])
    if turns != COLUMNS[MESSAGES]:
        raise ExampleError(
            f"Expected turns with a role and a content, both texts, in the column {MESSAGES!r}, found {turns}. Read the data with "
            "`load_examples`."
        )
    for name, expected in EXAMPLE_FEATURES.items():
        found = dataset.features.get(name)
        is_list = isinstance(found, List | LargeList)
        inner = found.feature if is_list else found
        is_text = isinstance(inner, Value) and inner.dtype in ("string", "large_string", "null")
        if found is not None and not (is_text and is_list == isinstance(expected, List)):
            kind = "lists of texts" if isinstance(expected, List) else "texts"
            raise ExampleError(
                f"Expected {kind} in the column {name!r}, found {found}. Read the data with `load_examples`."
            )


def check_rows(dataset: Dataset) -> None:
    """Refuses rows that lack what every example has: an id, an input and, where there are references, one at least.

    Raises:
        ExampleError: There is such a row.
    """
    names = [name for name in ("id", "input", "references") if name in dataset.column_names]
    first = 0
    for batch in dataset.select_columns(names).with_format("arrow").iter(10_000):
        for name in names:
            column = batch[name]
            lacking = pc.is_null(column)
            if name == "references":
                # The first reference is what is learned from.
                lacking = pc.or_(lacking, pc.fill_null(pc.equal(pc.list_value_length(column), 0), False))
                if pc.list_flatten(column).null_count:
                    has_null = pa.array([None in accepted for accepted in column.fill_null([]).to_pylist()])
                    lacking = pc.or_(lacking, has_null)
            if pc.any(lacking).as_py():
                row = first + pc.indices_nonzero(lacking)[0].as_py()
                raise ExampleError(
                    f"Expected {'a reference' if name == 'references' else f'an {name}'} in every row, found none in row {row}. Mend "
                    "the row, or leave it out; `load_examples(..., drop_invalid=True)` leaves out all such rows."
                )
        first += len(batch)


class ExampleError(ValueError):
    """Data that cannot be read as examples; the message says what was expected, what was found and what to do."""


def ids_hash(dataset: Dataset) -> str:
    """SHA-256 of the ids in their order."""
    return column_hash(dataset, "id")


def column_hash(dataset: Dataset, column: str) -> str:
    """SHA-256 of a column of strings, or of lists, in their order."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(column).with_format("arrow").iter(10_000):
        digest.update("".join(f"{len(text or '')}:{text}" for text in batch[column].to_pylist()).encode())
    return digest.hexdigest()
