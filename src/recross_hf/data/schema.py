"""The one schema of an example, and what every `Dataset` of examples allows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, List, Value
from datasets.table import InMemoryTable

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


def examples_by_task(
    examples: Dataset, *, max_examples_per_task: int | None = None, seed: int = 0
) -> dict[str, Dataset]:
    """Splits examples by task, in alphabetical order; of a larger task `max_examples_per_task` are drawn, always the same."""
    tasks = np.array(examples["task"][:], dtype=object)
    found = {}
    for task in sorted(set(tasks)):
        rows = np.flatnonzero(tasks == task)
        if max_examples_per_task is not None and len(rows) > max_examples_per_task:
            rows = np.sort(np.random.default_rng(seed).permutation(rows)[:max_examples_per_task])
        found[task] = take_rows(examples, rows)
    return found


def check_plain(dataset: Dataset, path: Path) -> None:
    """Refuses columns that hold more than texts and numbers: those of images or sounds would open files and addresses.

    Raises:
        ExampleError: there is one.
    """
    for name, feature in dataset.features.items():
        inner = feature.feature if isinstance(feature, List) else feature
        if not isinstance(inner, Value):
            raise ExampleError(
                f"Expected columns of texts and numbers in {path}, found {name!r} of the type {type(inner).__name__}. Remove it."
            )


def without_index(dataset: Dataset) -> Dataset:
    """The same rows of the same files, without a FAISS index.

    Nearly every method of `Dataset` makes a deep copy of it first: an index of vectors would be copied into memory, and one
    with memory-mapped lists fails.
    """
    return Dataset(dataset.data, info=dataset.info, indices_table=dataset._indices, fingerprint=dataset._fingerprint)


def take_rows(dataset: Dataset, rows: Sequence[int] | np.ndarray) -> Dataset:
    """Some rows as a `Dataset` in memory; `Dataset.select` refuses a data set that has an index."""
    table = without_index(dataset).with_format("arrow")[np.asarray(rows, dtype=np.int64)]
    return Dataset(InMemoryTable(table.replace_schema_metadata(dataset.features.arrow_schema.metadata)))


class ExampleError(ValueError):
    """Data that cannot be read as examples; the message says what was expected, what was found and what to do."""


def ids_hash(dataset: Dataset) -> str:
    """SHA-256 of the ids in their order."""
    return column_hash(dataset, "id")


def column_hash(dataset: Dataset, column: str) -> str:
    """SHA-256 of a column of strings, or of lists of them, in their order."""
    digest = hashlib.sha256()
    for batch in without_index(dataset).select_columns(column).with_format("arrow").iter(10_000):
        digest.update("".join(f"{len(text)}:{text}" for text in batch[column].to_pylist()).encode())
    return digest.hexdigest()
