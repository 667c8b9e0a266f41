"""What a benchmark found: every prediction with its scores, and the cell that each is of."""

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
"""One row a prediction. `query_set` is -1 where all query sets share it (the base, the floors); `source` is the example that several
rows of a task may be renderings of; `rank_correct` and `in_answers` are null where no answer choices are known."""

SHARED = -1
RESULTS_FILE, CELLS_FILE = "results.parquet", "cells.json"


@dataclass(frozen=True)
class Cell:
    """One method on one task with one query set.

    Args:
        kind: "method"; "base" for the model as it was; "floor" for answers that need no model.
        family: the method that an ablation varies; the method itself otherwise.
        query_set: -1 where there is but one for all query sets.
        num_queries: |Q|; as `num_retrieved` (|R|) and `upsampling_ratio` (mu) None where nothing was retrieved.
        retrieved_tasks: share of each upstream task in what was learned from.
        seconds: wall time by stage: "retrieve", "rerank", "train", "predict", ...
        error: why it failed; None where it did not. It has no predictions then.
        details: whatever else there is to tell: settings, ids of what was retrieved, what the safety gate said.
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
    """Methods x target tasks x query sets.

    Args:
        predictions: with `PREDICTION_FEATURES`.
        cells: in the order of methods and tasks that tables have.
    """

    predictions: Dataset
    cells: Sequence[Cell]

    def save(self, folder: str | Path) -> None:
        """Writes `results.parquet` and `cells.json`."""
        write_parquet(self.predictions, Path(folder) / RESULTS_FILE)
        write_json(Path(folder) / CELLS_FILE, [asdict(cell) for cell in self.cells])

    @classmethod
    def load(cls, folder: str | Path) -> EvaluationResults:
        """Reads what [`EvaluationResults.save`] wrote."""
        cells = [Cell(**cell) for cell in read_json(Path(folder) / CELLS_FILE)]
        return cls(read_parquet(Path(folder) / RESULTS_FILE), cells)
