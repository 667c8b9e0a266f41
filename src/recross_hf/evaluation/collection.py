"""The results of a run, read from the files of its cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Dataset

from .cells import CellKey
from .results import PREDICTION_FEATURES, Cell, EvaluationResults
from .run import EvaluationRun
from .scoring import floor_answers, score_answers
from .tasks import TargetTask


def collect_results(run: EvaluationRun) -> EvaluationResults:
    """All cells in the order of methods, tasks and query sets, and the floors, with the scores of all answers."""
    columns: dict[str, list] = {name: [] for name in PREDICTION_FEATURES}
    methods, tasks = list(run.methods), list(run.tasks)
    keys = sorted(run.keys(), key=lambda key: (methods.index(key.method), tasks.index(key.task), key.query_set))
    cells = [_collect_cell(run, key, columns) for key in keys]
    floors = {name: floor_answers(task.test) for name, task in run.tasks.items()}
    for floor in next(iter(floors.values())):
        for name, task in run.tasks.items():
            cells.append(Cell(floor, name, kind="floor", family=floor))
            _append(columns, CellKey(floor, name), task, floors[name][floor], floors[name][floor])
    return EvaluationResults(Dataset.from_dict(columns, features=PREDICTION_FEATURES), cells)


def _collect_cell(run: EvaluationRun, key: CellKey, columns: dict[str, list]) -> Cell:
    details: dict[str, Any] = {"overlaps": run.overlaps[key.task].to_json(run.on_overlap)}
    content = run.files.read(key)
    if content is None:
        method = run.methods[key.method]
        kind = "base" if method.retriever is None else "method"
        return Cell(
            *key, kind=kind, family=method.family or method.name, error=run.files.failure(key), details=details
        )
    details |= {"settings": content["settings"], "file": str(run.files.path(key).relative_to(run.files.folder))}
    details |= content["cell"].get("details", {})
    _append(columns, key, run.tasks[key.task], content["predictions"], content["choices"])
    return Cell(**{**content["cell"], "details": details})


def _append(
    columns: dict[str, list],
    key: CellKey,
    task: TargetTask,
    predictions: Sequence[str],
    choices: Sequence[str | None],
) -> None:
    number = len(predictions)
    rows = {
        "method": [key.method] * number,
        "task": [key.task] * number,
        "query_set": [key.query_set] * number,
        "id": task.test["id"][:],
        "source": task.sources,
        "prediction": predictions,
        **score_answers(predictions, task.test["references"][:], task.answers, choices),
    }
    for name, values in rows.items():
        columns[name] += values
