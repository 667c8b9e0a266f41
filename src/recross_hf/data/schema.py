"""The one schema of an example, and what every `Dataset` of examples allows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, List, Value

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
        if not isinstance(inner, Value):
            raise ExampleError(
                f"Expected columns of texts and numbers in {path}, found {name!r} of the type {type(inner).__name__}. Remove it."
            )


class ExampleError(ValueError):
    """Data that cannot be read as examples; the message says what was expected, what was found and what to do."""


def ids_hash(dataset: Dataset) -> str:
    """SHA-256 of the ids in their order."""
    return column_hash(dataset, "id")


def column_hash(dataset: Dataset, column: str) -> str:
    """SHA-256 of a column of strings, or of lists of them, in their order."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(column).with_format("arrow").iter(10_000):
        digest.update("".join(f"{len(text)}:{text}" for text in batch[column].to_pylist()).encode())
    return digest.hexdigest()
