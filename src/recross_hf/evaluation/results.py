"""Results of an evaluation: every prediction with its scores, and the cell that it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from ..core.files import read_json, read_parquet, write_json, write_parquet

PREDICTION_FEATURES = Features(
    {
        "method": Value("string"),
        "task": Value("string"),
        "query_set": Value("int32"),
        "id": Value("string"),
        "source": Value("string"),
        "prediction": Value("string"),
        "soft_em": Value("bool"),
        "exact_match": Value("bool"),
        "rank_correct": Value("bool"),
        "in_answers": Value("bool"),
        "num_words": Value("int32"),
    }
)
"""Columns of the predictions, which have one row each. `query_set` is -1 where all query sets share the prediction (the base, the
floors); `source` is the example that several rows of a task may be renderings of; `rank_correct` and `in_answers` are null where no answer
choices are known."""

SHARED = -1
"""Number in place of a query set's where all query sets share a cell."""

RESULTS_FILE, CELLS_FILE = "results.parquet", "cells.json"


@dataclass(frozen=True)
class Cell:
    """One method on one task with one query set.

    Args:
        method: Name of the method.
        task: Name of the target task.
        query_set: Number of the query set; -1 where all query sets share the cell.
        kind: Kind of the cell: "method"; "base" for the model as it was; "floor" for answers that need no model.
        family: Name of the method that an ablation varies; otherwise that of the method itself.
        num_queries: Number of queries, |Q|; None where nothing was retrieved.
        num_retrieved: Number of retrieved examples, |R|; None where nothing was retrieved.
        upsampling_ratio: Ratio mu of candidates to chosen examples; None where nothing was chosen.
        retrieved_tasks: Share of each upstream task in the examples that were learned from.
        seconds: Wall time by stage: "retrieve", "rerank", "train", "predict", ...
        error: Message of a cell that failed, which has no predictions; None otherwise.
        details: Settings, overlaps, the name of the cell's file, the verdict of the safety gate and, where they were recorded, the
            `signals` of the adaptation ([`AdaptationSignals`]).
    """

    method: str
    task: str
    query_set: int = SHARED
    kind: str = "method"
    family: str = ""
    num_queries: int | None = None
    num_retrieved: int | None = None
    upsampling_ratio: float | None = None
    retrieved_tasks: Mapping[str, float] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationResults:
    """Cells of methods x target tasks x query sets, and their predictions.

    Args:
        predictions: Predictions with the columns of [`PREDICTION_FEATURES`].
        cells: Cells in the order of methods and tasks that tables have.
    """

    predictions: Dataset
    cells: Sequence[Cell]

    def save(self, folder: str | Path) -> None:
        """Writes `results.parquet` and `cells.json`."""
        write_parquet(self.predictions, Path(folder) / RESULTS_FILE)
        write_json(Path(folder) / CELLS_FILE, [asdict(cell) for cell in self.cells])

    @classmethod
    def load(cls, folder: str | Path) -> EvaluationResults:
        """Reads results that [`EvaluationResults.save`] wrote."""
        cells = [Cell(**cell) for cell in read_json(Path(folder) / CELLS_FILE)]
        return cls(read_parquet(Path(folder) / RESULTS_FILE), cells)
