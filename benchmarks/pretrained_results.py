"""What `benchmarks/pretrained.py` found, as tables: gains over the model as it is and over random examples, with paired intervals.

    python benchmarks/pretrained_results.py
    python benchmarks/pretrained_results.py --unpack FOLDER

The second command writes each part as a folder that `write_report` and `benchmarks/gate_classifier.py` take.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import Dataset

from recross_hf import EvaluationResults
from recross_hf.core.tables import format_table
from recross_hf.evaluation.report.comparison import Comparison, Estimate
from recross_hf.evaluation.report.scores import EvaluationScores
from recross_hf.evaluation.results import PREDICTION_FEATURES, SHARED, Cell

FOLDER = Path(__file__).parent / "results" / "pretrained"
NONE, MAJORITY = "none", "majority answer"
HARM = 1.0
"""Points of exact match below the model as it is from which on an adaptation harms."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder of predictions.parquet and cells.parquet")
    parser.add_argument("--unpack", type=Path, help="folder to write each part to, as an evaluation's")
    args = parser.parse_args()
    predictions, cells = (pd.read_parquet(args.results / f"{name}.parquet") for name in ("predictions", "cells"))
    for part in cells.part.unique():
        results = of_part(part, predictions, cells)
        if args.unpack is not None:
            results.save(args.unpack / part)
        else:
            print_part(part, results)


def of_part(part: str, predictions: pd.DataFrame, cells: pd.DataFrame) -> EvaluationResults:
    """The results of a part, beside the model as it is on the same examples where that stands among the targets."""
    rows = predictions[predictions.part == part]
    listed = cells[cells.part == part]
    if NONE not in set(rows.method):
        is_base = (predictions.part == "targets") & (predictions.method == NONE)
        rows = pd.concat([predictions[is_base & predictions.task.isin(rows.task.unique())], rows])
        listed = pd.concat([cells[(cells.part == "targets") & (cells.method == NONE)], listed])
    found = [
        Cell(
            **{name: row[name] for name in ("method", "task", "query_set", "kind", "family")},
            **{name: json.loads(row[name]) for name in ("retrieved_tasks", "seconds", "details")},
        )
        for row in listed.to_dict("records")
    ]
    floors = rows[rows.method == MAJORITY][["method", "task"]].drop_duplicates()
    found += [Cell(MAJORITY, task, kind="floor", family=MAJORITY) for task in floors.task]
    columns = {name: rows[name].tolist() for name in PREDICTION_FEATURES if name != "rank_correct"}
    for name in ("rank_correct", "in_answers"):
        columns[name] = [None if value is None or value != value else bool(value) for value in rows[name]]
    return EvaluationResults(Dataset.from_dict(columns, features=PREDICTION_FEATURES), found)


def print_part(part: str, results: EvaluationResults) -> None:
    names = list(dict.fromkeys(cell.method for cell in results.cells if cell.method != NONE))
    base = Comparison(EvaluationScores(results), "exact_match", [NONE])
    print(f"\n{part}: exact match of the model as it is {base.summary(NONE).mean:.1f}, {len(base.tasks)} tasks")
    print(format_table(["method", "cells", "exact match", "gain", "SoftEM gain", "rank gain", "above random", "harmed", "worst", "best", "s"], [row_of(results, name) for name in names]))  # fmt: skip


def row_of(results: EvaluationResults, name: str) -> list[str]:
    """A method beside the model as it is, and beside random examples where both have query sets."""
    scores = EvaluationScores(of_methods(results, name, NONE))
    gains = [gain(scores, metric, name, NONE) for metric in ("exact_match", "soft_em", "rank_correct")]
    has_random = "random" in {cell.method for cell in results.cells} and name not in ("random", MAJORITY)
    above = (
        gain(EvaluationScores(of_methods(results, name, "random")), "exact_match", name, "random")
        if has_random
        else None
    )
    changes = np.array(cell_gains(scores, name))
    seconds = [sum(cell.seconds.values()) for cell in results.cells if cell.method == name and cell.seconds]
    return [
        name,
        str(len(changes)),
        f"{Comparison(scores, 'exact_match').summary(name).mean:.1f}",
        *map(told, (*gains, above)),
        f"{100 * (changes < -HARM).mean():.0f} %",
        f"{changes.min():+.1f}",
        f"{changes.max():+.1f}",
        f"{np.median(seconds):.0f}" if seconds else "",
    ]


def of_methods(results: EvaluationResults, one: str, other: str) -> EvaluationResults:
    """The cells of two methods in the query sets that the first one has on all tasks: a run that is cut short leaves the last one in parts."""
    num_tasks = len({cell.task for cell in results.cells})
    counts = Counter(cell.query_set for cell in results.cells if cell.method == one)
    sets = {query_set for query_set, count in counts.items() if count == num_tasks} | {SHARED}
    if sets == {SHARED}:
        sets |= {cell.query_set for cell in results.cells}
    cells = [cell for cell in results.cells if cell.method in (one, other) and cell.query_set in sets]
    keys = {(cell.method, cell.query_set) for cell in cells}
    columns = zip(results.predictions["method"][:], results.predictions["query_set"][:], strict=True)
    rows = [row for row, key in enumerate(columns) if key in keys]
    return EvaluationResults(results.predictions.select(rows), cells)


def gain(scores: EvaluationScores, metric: str, one: str, other: str) -> Estimate | None:
    """The mean paired difference over tasks, in points; tasks without the metric (no known answers) are left out."""
    tasks = [task for task in scores.tasks if not np.isnan(scores.of(metric, task)).all()]
    return Comparison(scores, metric, [one, other], tasks).differences([(one, other)])[0].overall


def cell_gains(scores: EvaluationScores, name: str) -> list[float]:
    """The gain in exact match of each cell over the model as it is, in points."""
    found = []
    for task in scores.tasks:
        of_task = scores.of("exact_match", task)
        mine, base = (of_task[scores.methods.index(method)] for method in (name, NONE))
        found += [np.nanmean(row - other) for row, other in zip(mine, base, strict=True) if not np.isnan(row).all()]
    return found


def told(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.mean:+.2f} [{estimate.low:+.1f}, {estimate.high:+.1f}]"


if __name__ == "__main__":
    main()
