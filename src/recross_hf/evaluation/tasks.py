"""Target tasks: unseen tasks to evaluate on, each a labelled test set and unlabelled query sets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml
from datasets import Dataset

from ..core.recipes import RecipeLoader
from ..data.conversations import as_json, texts_of
from ..data.readers import load_examples, load_queries
from ..data.starter import NUM_QUERY_SETS, load_starter_task
from ..mixture.decontamination import source_example
from .scoring import answer_sets

# Names of the columns in the files of the ReCross authors.
_AUTHORS_COLUMNS = {"id": "example_id", "references": "outputs"}
_ENTRY_FIELDS = {"task", "test", "queries", "columns"}


@dataclass(frozen=True)
class TargetTask:
    """An unseen task to evaluate on.

    Args:
        name: Name of the task; upstream examples of a task of this name are never retrieved for it.
        test: Labelled examples ([`load_examples`]). A column `source` tells which of them were made of the same source example; by
            default their ids do (`task|split|template|#n`), and other ids are sources of their own.
        query_sets: Sets of unlabelled inputs ([`load_queries`]), whose order means nothing: |Q| takes the first inputs.
        answers: Answers that each test example may have, empty where they are not known; by default [`answer_sets`] of the test
            examples.

    Raises:
        ValueError: The test set or a query set is empty, or there is no query set.
    """

    name: str
    test: Dataset
    query_sets: Sequence[Dataset]
    answers: Sequence[Sequence[str]] = field(default=())

    def __post_init__(self) -> None:
        sizes = [len(self.test), *map(len, self.query_sets)]
        if not self.query_sets or not all(sizes):
            raise ValueError(
                f"Target task {self.name}: expected test examples and at least one query set, none of them empty, found "
                f"{sizes[0]} test examples and query sets of {sizes[1:]} inputs."
            )
        object.__setattr__(self, "answers", list(self.answers or answer_sets(self.test)))
        if len(self.answers) != len(self.test):
            raise ValueError(
                f"Target task {self.name}: expected answers of each of {len(self.test)} examples, found {len(self.answers)}."
            )

    @cached_property
    def sources(self) -> list[str]:
        """The source example of each test example."""
        if "source" in self.test.column_names:
            return self.test["source"][:]
        return [source_example(identity) for identity in self.test["id"][:]]

    @cached_property
    def _test_hash(self) -> str:
        columns = [self.test["id"][:], as_json(texts_of(self.test)), self.test["references"][:]]
        return _hash([*columns, self.sources, self.answers])

    def without(self, rows: Sequence[int] | set[int]) -> TargetTask:
        """The task without these test examples."""
        return self._with_rows(np.setdiff1d(np.arange(len(self.test)), np.asarray(sorted(rows), dtype=np.int64)))

    def limited(self, num_test: int | None = None, num_query_sets: int | None = None) -> TargetTask:
        """The task with fewer test examples and query sets.

        Args:
            num_test: Largest number of test examples. Renderings of a source example stay together, and the choice is always the same.
            num_query_sets: Largest number of query sets.
        """
        task = replace(self, query_sets=list(self.query_sets)[:num_query_sets])
        if num_test is None or len(self.test) <= num_test:
            return task
        names, source_of, sizes = np.unique(self.sources, return_inverse=True, return_counts=True)
        drawn = np.random.default_rng(0).permutation(len(names))
        # Several rows of a source example say little more than one row, so that parts of sources would only look like more data.
        count = max(1, int(np.searchsorted(np.cumsum(sizes[drawn]), num_test, side="right")))
        return task._with_rows(np.flatnonzero(np.isin(source_of, drawn[:count])))

    def _with_rows(self, rows: np.ndarray) -> TargetTask:
        return replace(self, test=self.test.select(rows), answers=[self.answers[row] for row in rows])

    def identity(self, query_set: int | None = None, num_queries: int | None = None) -> dict[str, str]:
        """Hashes of the test set and, with a query set, of its first inputs."""
        identity = {"test": self._test_hash}
        if query_set is not None:
            identity["queries"] = _hash(as_json(texts_of(self.query_sets[query_set])[:num_queries]))
        return identity


def load_target_task(
    folder: str | Path, *, name: str | None = None, columns: Mapping[str, str] | None = None
) -> TargetTask:
    """Reads a target task from a folder: `test.parquet` and `query-0.parquet`, `query-1.parquet`, ...

    A test example is left out where a query set holds its source example: in the paper's BIG-bench tasks, the queries are drawn from
    the test examples.

    Args:
        folder: Folder of the task.
        name: Name of the task; the folder's by default.
        columns: Columns of the files by the schema's names, as [`load_examples`] takes them; by default those of the authors' files,
            where the files are theirs.

    Raises:
        FileNotFoundError: There is no such folder, or a file is missing.
        ExampleError: A file cannot be read as examples.
        ValueError: Query sets are missing between others, or nothing is left to test.
    """
    folder = Path(folder)
    name = name or folder.resolve().name
    numbers = sorted(
        int(match[1])
        for path in folder.glob("query-*.parquet")
        if (match := re.match(r"query-(\d+)\.parquet$", path.name))
    )
    if not (folder / "test.parquet").is_file() or not numbers:
        raise FileNotFoundError(
            f"Expected a target task in {folder}, test.parquet and query-0.parquet, found "
            f"{', '.join(sorted(path.name for path in folder.glob('*.parquet'))) or 'neither'}."
        )
    if numbers != list(range(len(numbers))):
        raise ValueError(f"Expected query sets 0 to {len(numbers) - 1} in {folder}, found {numbers}. Rename them.")
    test_file = folder / "test.parquet"
    if columns is None:
        present = pq.read_schema(test_file).names
        columns = {
            column: theirs
            for column, theirs in _AUTHORS_COLUMNS.items()
            if column not in present and theirs in present
        }
    queries = [folder / f"query-{number}.parquet" for number in numbers]
    return _task(name, [test_file], [[path] for path in queries], columns)


def starter_target_task(name: str) -> TargetTask:
    """Loads an unseen task of the starter, with its five query sets."""
    sets = [load_starter_task(name, number) for number in range(NUM_QUERY_SETS)]
    return TargetTask(name, sets[0][1], [queries for queries, _ in sets])


def read_target_tasks(path: str | Path) -> list[TargetTask]:
    """Reads the target tasks that a YAML file lists.

    ```yaml
    targets:
      - {task: tickets, test: labelled.jsonl, queries: [monday.txt, tuesday.txt]} # a file for each query set
      - {task: faq, test: faq/test-*.parquet, queries: [faq/asked.csv], columns: {input: question, references: answer}}
    ```

    `columns` is as [`load_examples`] takes it. Files are looked for from the working directory.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no such list; the message says where.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a YAML file of target tasks, found none at {path}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=RecipeLoader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"Expected YAML in {path}, found: {' '.join(str(error).split())}.") from error
    entries = content.get("targets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"Expected a list `targets` of tasks in {path}, found {type(entries).__name__}.")
    return [_listed_task(entry, f"entry {number} of `targets` in {path}") for number, entry in enumerate(entries)]


def _listed_task(entry: Any, place: str) -> TargetTask:
    fields = set(entry) if isinstance(entry, dict) else set()
    if not {"task", "test", "queries"} <= fields or fields - _ENTRY_FIELDS:
        raise ValueError(
            f"Expected `task`, `test`, `queries` and, optionally, `columns` as {place}, found "
            f"{', '.join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__}."
        )
    as_list = {name: [entry[name]] if isinstance(entry[name], str) else entry[name] for name in ("test", "queries")}
    for name, files in as_list.items():
        if not isinstance(files, list) or not files or not all(isinstance(file, str) for file in files):
            raise ValueError(f"Expected a file or a list of files as `{name}` of {place}, found {entry[name]!r}.")
    return _task(
        str(entry["task"]), as_list["test"], [[file] for file in as_list["queries"]], entry.get("columns") or {}
    )


def _task(
    name: str, test_files: Sequence[str | Path], query_files: Sequence[list[str | Path]], columns: Mapping[str, str]
) -> TargetTask:
    test = load_examples([str(file) for file in test_files], columns=columns, task=name)
    sets = []
    for number, files in enumerate(query_files):
        # Text files have no columns, and where labelled files stand for queries, their labels are not read.
        mapped = {} if str(files[0]).endswith(".txt") else {k: v for k, v in columns.items() if k != "references"}
        queries = load_queries([str(file) for file in files], columns=mapped, task=name)
        sets.append(_with_own_ids(queries, name, number))
    seen = {source_example(identity) for queries in sets for identity in queries["id"][:]}
    rows = [row for row, identity in enumerate(test["id"][:]) if source_example(identity) not in seen]
    if not rows:
        raise ValueError(
            f"Target task {name}: all {len(test)} test examples are in a query set. Give another test set."
        )
    return TargetTask(name, test.select(rows), sets)


def _with_own_ids(queries: Dataset, task: str, number: int) -> Dataset:
    """Gives other ids to queries without ids of their own, whose ids were made of row numbers, as those of test examples may be."""
    if queries["id"][:] != [f"{task}/{row}" for row in range(len(queries))]:
        return queries
    columns = queries.to_dict() | {"id": [f"{task}/query-{number}/{row}" for row in range(len(queries))]}
    return Dataset.from_dict(columns, features=queries.features)


def _hash(content: Any) -> str:
    return sha256(repr(content).encode("utf-8", "surrogatepass")).hexdigest()
