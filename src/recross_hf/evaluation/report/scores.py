"""Scores as arrays: methods x query sets x examples, task by task."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ...core.metrics import METRICS
from ..results import SHARED, EvaluationResults


class EvaluationScores:
    """The scores of [`EvaluationResults`], ready to compare.

    Attributes:
        methods: Names of the methods, in the order of the cells.
        tasks: Names of the tasks, in the order of the cells.
        query_sets: Numbers of the query sets.

    Raises:
        ValueError: There are no cells, cells and predictions do not fit, or a task's cells have different examples.
    """

    def __init__(self, results: EvaluationResults) -> None:
        cells = {(cell.method, cell.task, cell.query_set): cell for cell in results.cells}
        if not cells:
            raise ValueError("Expected results with at least one cell, found none.")
        self.methods = list(dict.fromkeys(cell.method for cell in results.cells))
        self.tasks = list(dict.fromkeys(cell.task for cell in results.cells))
        self.query_sets = sorted({cell.query_set for cell in results.cells} - {SHARED}) or [SHARED]
        self._table: pa.Table = results.predictions.with_format("arrow")[:].combine_chunks()
        self._rows = _rows_by_cell(self._table)
        for key in self._rows.keys() - cells.keys():
            raise ValueError(f"Expected a cell for all predictions, found none for {_cell_name(key)}.")
        for key, cell in cells.items():
            if cell.error is None and key not in self._rows:
                raise ValueError(
                    f"Expected predictions of {_cell_name(key)}, found none. A cell without any says why in `error`."
                )
        self._ids: dict[str, pa.Array] = {}
        self._sources: dict[str, np.ndarray] = {}
        for key, rows in self._rows.items():
            self._take_up_examples(key, rows)

    def _take_up_examples(self, key: tuple[str, str, int], rows: np.ndarray) -> None:
        task, ids = key[1], self._column("id", rows)
        if not self._ids.setdefault(task, ids).equals(ids):
            raise ValueError(
                f"Expected the same examples in the same order in all cells of {task}, found others in {_cell_name(key)}."
            )
        if task not in self._sources:
            # An example whose source is not known stands alone.
            sources = pc.coalesce(self._column("source", rows), ids)
            self._sources[task] = sources.dictionary_encode().indices.to_numpy()

    def num_examples(self, task: str) -> int:
        """The number of a task's test examples; 0 where all of its cells failed."""
        return len(self._ids.get(task, ()))

    def sources(self, task: str) -> np.ndarray:
        """The number `[num_examples]` of each test example's source example."""
        return self._sources.get(task, np.zeros(0, dtype=np.int32))

    def num_sources(self, task: str) -> int:
        """The number of different source examples that a task's test examples are renderings of."""
        return len(np.unique(self.sources(task)))

    def predictions(self, method: str, task: str) -> dict[int, list[str]]:
        """The answers of a method to a task's examples, by query set."""
        return {
            key[2]: self._column("prediction", rows).to_pylist()
            for key, rows in self._rows.items()
            if key[:2] == (method, task)
        }

    def ids(self, task: str) -> list[str]:
        """The ids of a task's examples, in the order that all arrays have."""
        return self._ids[task].to_pylist() if task in self._ids else []

    def of(self, metric: str, task: str) -> np.ndarray:
        """The scores `[methods, query sets, examples]` of a task, in percent or words; NaN where there is none.

        A method that all query sets share has the same scores in all.
        """
        shape = len(self.methods), len(self.query_sets), self.num_examples(task)
        scores = np.full(shape, np.nan)
        scale = 100.0 if METRICS[metric].is_percentage else 1.0
        for (method, of_task, query_set), rows in self._rows.items():
            if of_task == task:
                values = self._column(metric, rows).cast(pa.float64()).to_numpy(zero_copy_only=False)
                sets = slice(None) if query_set == SHARED else self.query_sets.index(query_set)
                scores[self.methods.index(method), sets] = scale * values
        return scores

    def _column(self, name: str, rows: np.ndarray) -> pa.Array:
        taken = self._table[name].take(pa.array(rows))
        return taken.combine_chunks() if isinstance(taken, pa.ChunkedArray) else taken


def _rows_by_cell(table: pa.Table) -> dict[tuple[str, str, int], np.ndarray]:
    if not len(table):
        return {}
    codes, names = [], []
    for column in ("method", "task", "query_set"):
        encoded = table[column].combine_chunks().dictionary_encode()
        codes.append(encoded.indices.to_numpy())
        names.append(encoded.dictionary.to_pylist())
    groups = np.ravel_multi_index(codes, [len(values) for values in names])
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    rows = np.split(order, starts[1:])
    return {tuple(names[axis][codes[axis][some[0]]] for axis in range(3)): some for some in rows}


def _cell_name(key: tuple[str, str, int]) -> str:
    method, task, query_set = key
    return f"{method} on {task}" + ("" if query_set == SHARED else f", query set {query_set}")
