"""What a visitor gives: inputs that are pasted, dropped as a file, or those of a task of the starter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from ..data.conversations import texts_of
from ..data.files import READER_OF
from ..data.readers import load_examples, load_queries
from ..data.schema import ExampleError
from ..data.starter import load_starter_task
from .limits import Limits

FILE_TYPES = (".txt", ".csv", ".jsonl", ".json")
"""Files that are read. Parquet is none of them: its rows would be kept in a cache on disk."""
OWN_TASK = "your task"


@dataclass(frozen=True)
class Given:
    """The inputs of a visitor.

    Args:
        inputs: The unlabelled inputs.
        task: Name of the task.
        labelled: Labelled examples to score answers on; None where there are none.
        are_inputs_labelled: Whether the labelled examples are the inputs themselves.
    """

    inputs: Dataset
    task: str
    labelled: Dataset | None = None
    are_inputs_labelled: bool = False

    @property
    def texts(self) -> list[str]:
        """The inputs as texts."""
        return texts_of(self.inputs)


def given_as_text(text: str, labels: str, limits: Limits) -> Given:
    """Reads inputs that were pasted, one a line, and their right answers, where there are any.

    Raises:
        ExampleError: There is no input, there are too many or too long ones, or there is not an answer for each.
    """
    if len(text) + len(labels) > limits.file_bytes:  # at least as many bytes
        raise ExampleError(
            f"Expected at most {limits.file_bytes:,} bytes of inputs, found {len(text.encode()) + len(labels.encode()):,}. Paste fewer: about "
            "sixteen are enough."
        )
    inputs, answers = _lines(text), _lines(labels)
    if not inputs:
        raise ExampleError("Expected at least one input, found none. Paste some, one a line, or drop a file of them.")
    if "\0" in text or "\0" in labels:
        raise ExampleError("Expected text, found a zero byte in it. Paste text alone.")
    if answers and len(answers) != len(inputs):
        raise ExampleError(
            f"Expected a right answer for each of the {len(inputs)} inputs, one a line, found {len(answers)}. Add those that are missing, or "
            "leave all of them out."
        )
    queries = load_queries(inputs, task=OWN_TASK)
    labelled = None
    if answers:
        labelled = load_examples({"input": inputs, "references": [[one] for one in answers]}, task=OWN_TASK)
    return _checked(Given(queries, OWN_TASK, labelled, are_inputs_labelled=labelled is not None), limits)


def given_as_file(path: str | Path, limits: Limits) -> Given:
    """Reads inputs from a file: one a line, or csv, jsonl or json with the column `input` and perhaps `references`.

    Raises:
        ExampleError: The file is too large, of another kind, or holds no inputs; the message names it without its folder.
    """
    path = Path(path)
    try:
        suffix, size = path.suffix.lower(), path.stat().st_size
        if suffix not in FILE_TYPES:
            raise ExampleError(
                f"Expected a file that ends in {', '.join(FILE_TYPES)}, found {path.name}. Save the inputs as one of them."
            )
        if size > limits.file_bytes:
            raise ExampleError(
                f"Expected a file of at most {limits.file_bytes:,} bytes, found {size:,}. Take fewer inputs: about sixteen are enough."
            )
        rows = READER_OF[suffix](path)
        has_labels = "references" in rows.column_names
        labelled = load_examples(rows, task=OWN_TASK) if has_labels else None
        kept = rows.remove_columns("references") if has_labels else rows
        queries = load_queries(kept, task=OWN_TASK)
    except ExampleError as error:
        # Where the server keeps files is nothing to a visitor.
        raise ExampleError(str(error).replace(str(path), path.name)) from None
    return _checked(Given(queries, OWN_TASK, labelled, are_inputs_labelled=has_labels), limits)


def given_by_starter(task: str, limits: Limits) -> Given:
    """An unseen task of the starter, with test examples that are scored.

    Raises:
        ValueError: There is no such task.
    """
    inputs, test = load_starter_task(task)
    return Given(inputs, task, test.select(range(min(limits.scored, len(test)))))


def _lines(text: str) -> list[str]:
    # Not `splitlines`: some characters at which it splits stand within a text.
    return [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n") if line.strip()]


def _checked(given: Given, limits: Limits) -> Given:
    texts: Sequence[str] = given.texts
    if len(texts) > limits.inputs:
        raise ExampleError(
            f"Expected at most {limits.inputs} inputs, found {len(texts):,}. Take some of them: about sixteen are enough."
        )
    if (longest := max(map(len, texts))) > limits.characters:
        row = next(row for row, text in enumerate(texts, start=1) if len(text) == longest)
        raise ExampleError(
            f"Expected inputs of at most {limits.characters:,} characters, found {longest:,} in input {row}. Shorten it."
        )
    return given
