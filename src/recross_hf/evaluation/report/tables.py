"""The tables of an evaluation, in the shape of the paper's (tables 1, 2 and 3) and beside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...core.metrics import METRICS
from ...core.tables import Change, Table, TableCell
from ..results import SHARED, Cell
from .comparison import Comparison, Difference, Estimate
from .paper_results import COLUMNS, TABLE_1, TABLE_1_SPREAD, TABLE_3, PaperRow
from .scores import EvaluationScores

_HIGHER_IS_BETTER = ("exact_match", "soft_em", "rank_correct")


def main_table(comparison: Comparison, *, name: str, caption: str, floors: Sequence[str] = ()) -> Table:
    """Scores with tasks in rows and methods in columns; the last rows are means over tasks (paper, tables 1 and 2).

    Args:
        comparison: Comparison of the methods.
        name: Name of the table's files.
        caption: Sentence on what the table shows.
        floors: Names of methods that are no contestants; the highest of the others is bold, where it is above 0 and not below them.
    """
    methods = comparison.methods
    rows: list[list[TableCell]] = [
        [task, *(comparison.score(method, task) for method in methods)] for task in comparison.tasks
    ]
    summaries = [comparison.summary(method) for method in methods]
    for statistic in ("mean", "std", "median", "min", "max"):
        rows.append([f"All@{statistic}", *(summary and getattr(summary, statistic) for summary in summaries)])
    bold = set()
    if comparison.metric in _HIGHER_IS_BETTER:
        for number, row in enumerate(rows[: len(comparison.tasks) + 1]):  # the tasks and All@mean
            scores = {
                column: round(score, 2)
                for column, (method, score) in enumerate(zip(methods, row[1:], strict=True), start=1)
                if method not in floors and isinstance(score, float)
            }
            of_floors = [
                round(score, 2)
                for method, score in zip(methods, row[1:], strict=True)
                if method in floors and isinstance(score, float)
            ]
            # What a constant answer beats is no result to stress, and neither is nothing right.
            best = max([0.0, *scores.values()])
            if best > 0 and best >= max(of_floors, default=0.0):
                bold |= {(number, column) for column, score in scores.items() if score == best}
    return Table(name, ["task", *methods], rows, caption, comparison.notes, frozenset(bold))


def intervals_table(comparisons: Sequence[Comparison], *, name: str, caption: str) -> Table:
    """Means and intervals, with methods in rows and metrics in columns."""
    header = ["method"]
    for comparison in comparisons:
        header += [METRICS[comparison.metric].label, "low", "high"]
    rows = []
    for method in comparisons[0].methods:
        row: list[TableCell] = [method]
        for comparison in comparisons:
            row += comparison.interval(method) or (None, None, None)
        rows.append(row)
    return Table(name, header, rows, caption)


def differences_table(differences: Sequence[Difference], *, name: str, caption: str, alpha: float = 0.05) -> Table:
    """Differences with pairs of methods in rows, and on how many tasks one method is clearly better."""
    header = ["pair", "difference", "low", "high", "p", "p corrected", "tasks better", "tasks worse"]
    rows = []
    for difference in differences:
        clear = [estimate.mean for estimate in difference.by_task.values() if estimate.corrected_p < alpha]
        counts = [sum(mean > 0 for mean in clear), sum(mean < 0 for mean in clear)]
        rows.append([pair_name(difference), *_estimate_cells(difference.overall), *counts])
    return Table(name, header, rows, caption)


def task_differences_table(difference: Difference, *, name: str, caption: str) -> Table:
    """The difference of a pair with tasks in rows."""
    rows = [[task, *_estimate_cells(estimate)] for task, estimate in difference.by_task.items()]
    rows.append(["mean", *_estimate_cells(difference.overall)[:4], ""])
    return Table(name, ["task", "difference", "low", "high", "p", "p corrected"], rows, caption)


def ablations_table(comparison: Comparison, main: str, *, name: str, caption: str) -> Table:
    """Scores with a method and its variants in rows, and their differences from the method (paper, table 3).

    Args:
        comparison: Comparison of the method and its variants.
        main: Name of the method that is varied.
        name: Name of the table's files.
        caption: Sentence on what the table shows.
    """
    others = [method for method in comparison.methods if method != main]
    changes = {change.one: change.overall for change in comparison.differences([(other, main) for other in others])}
    beside = comparison.metric == "soft_em" and any(method in TABLE_3 for method in others)
    rows = []
    for method in (main, *others):
        row = [method, *(comparison.summary(method) or [None] * 5), *_estimate_cells(changes.get(method))]
        rows.append(row + ([TABLE_3[method][0] if method in TABLE_3 else None] if beside else []))
    header = ["method", "All@mean", "std", "median", "min", "max", "difference", "low", "high", "p", "p corrected"]
    return Table(name, header + ["paper's All@mean"] * beside, rows, caption, comparison.notes)


def paper_table(comparison: Comparison, *, name: str) -> Table | None:
    """SoftEM beside the paper's for the methods that it has; None where there are none.

    Args:
        comparison: Comparison on tasks of [`TABLE_1`] alone.
        name: Name of the table's files.
    """
    methods = [method for method in comparison.methods if method in COLUMNS]
    if not methods:
        return None
    tasks, summaries = comparison.complete_tasks, [comparison.summary(method) for method in methods]

    def row(name: str, ours: Sequence[float | None], paper: PaperRow) -> list[TableCell]:
        pairs = [(mine, getattr(paper, COLUMNS[method])) for mine, method in zip(ours, methods, strict=True)]
        return [name, *(score for pair in pairs for score in pair), paper.t0_3b]

    rows = [
        row(task, [comparison.score(method, task) for method in methods], TABLE_1[task]) for task in comparison.tasks
    ]
    if tasks:
        means = [summary and summary.mean for summary in summaries]
        paper_means = PaperRow(*np.mean(np.array([TABLE_1[task] for task in tasks], dtype=float), axis=0).tolist())
        rows.append(row("All@mean", means, paper_means))
        if len(tasks) == len(TABLE_1):
            for statistic, paper in TABLE_1_SPREAD.items():
                rows.append(
                    row(f"All@{statistic}", [summary and getattr(summary, statistic) for summary in summaries], paper)
                )
        if methods[0] == "none":
            paper_gains = PaperRow._make(_gains(paper_means, paper_means.bart0))
            rows.append(row("gain over none", _gains(means, means[0]), paper_gains._replace(t0_3b=None)))
    header = ["task", *(f"{method}{whose}" for method in methods for whose in ("", " (paper)")), "T0-3B (paper)"]
    caption = (
        "SoftEM beside the paper's (Lin et al. 2022, table 1), whose model is another and larger one (BART-large, 0.4 B "
        "parameters). The method none is their BART0, dense their ReCross-dagger."
    )
    return Table(name, header, rows, caption, comparison.notes)


def outputs_table(scores: EvaluationScores, comparisons: Sequence[Comparison], *, name: str, caption: str) -> Table:
    """Shares of conspicuous answers with methods in rows; means over tasks.

    Args:
        scores: Scores, with the answers that they are of.
        comparisons: Comparisons by the share in the answer set and by the mean length.
        name: Name of the table's files.
        caption: Sentence on what the table shows.
    """
    header = ["method", *(METRICS[comparison.metric].label for comparison in comparisons), "empty (%)"]
    rows: list[list[TableCell]] = []
    for method in comparisons[0].methods:
        summaries = [comparison.summary(method) for comparison in comparisons]
        empty, repeated = [], []
        for task in scores.tasks:
            for answers in scores.predictions(method, task).values():
                counts = Counter(answer.strip() for answer in answers)
                empty.append(counts[""] / len(answers))
                repeated.append(counts.most_common(1)[0][1] / len(answers))
        shares = [100 * float(np.mean(each)) if each else None for each in (empty, repeated)]
        rows.append([method, *(summary and summary.mean for summary in summaries), *shares])
    notes = list(dict.fromkeys(note for comparison in comparisons for note in comparison.notes))
    return Table(name, [*header, "most frequent answer (%)"], rows, caption, notes)


def data_table(scores: EvaluationScores, cells: Iterable[Cell], *, name: str, caption: str) -> Table:
    """Numbers of test examples, of source examples and of query sets, with tasks in rows."""
    query_sets: dict[str, set[int]] = defaultdict(set)
    num_queries: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        if cell.kind == "method":
            query_sets[cell.task] |= {cell.query_set} - {SHARED}
            if cell.num_queries is not None:
                num_queries[cell.task].add(cell.num_queries)
    rows: list[list[TableCell]] = []
    for task in scores.tasks:
        sizes = ", ".join(map(str, sorted(num_queries[task])))
        rows.append([task, scores.num_examples(task), scores.num_sources(task), len(query_sets[task]), sizes])
    return Table(name, ["task", "test examples", "distinct sources", "query sets", "|Q|"], rows, caption)


def seconds_table(cells: Iterable[Cell], *, name: str, caption: str) -> Table:
    """Mean seconds of a finished cell, with methods in rows and stages in columns."""
    seconds: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for cell in cells:
        if cell.seconds and cell.error is None:
            seconds[cell.method].append(cell.seconds)
    stages = list(dict.fromkeys(stage for of_method in seconds.values() for of_cell in of_method for stage in of_cell))
    rows: list[list[TableCell]] = []
    for method, of_method in seconds.items():
        by_stage = [
            float(np.mean([of_cell.get(stage, 0.0) for of_cell in of_method]))
            if any(stage in of_cell for of_cell in of_method)
            else None
            for stage in stages
        ]
        totals = [sum(of_cell.values()) for of_cell in of_method]
        rows.append([method, len(of_method), *by_stage, float(np.mean(totals)), float(sum(totals))])
    return Table(name, ["method", "cells", *stages, "a cell", "all cells"], rows, caption)


def pair_name(difference: Difference) -> str:
    """A pair of methods as tables and pictures name it."""
    return f"{difference.one} - {difference.other}"


def p_text(p: float) -> str:
    """A p-value as tables show it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _estimate_cells(estimate: Estimate | None) -> list[TableCell]:
    if estimate is None:
        return [None] * 5
    return [*map(Change, estimate[:3]), p_text(estimate.p), p_text(estimate.corrected_p)]


def _gains(means: Sequence[float | None], base: float | None) -> list[Change | None]:
    """The change of each mean from that of the base; None where one of them is missing."""
    return [None if mean is None or base is None else Change(mean - base) for mean in means]
