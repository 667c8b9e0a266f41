"""The tables of a benchmark, in the shape of the paper's (tables 1, 2 and 3) and beside them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from ...core.tables import Change, Table
from ..results import Cell
from .comparison import Comparison, Difference, Estimate
from .paper_results import COLUMNS, TABLE_1, TABLE_1_SPREAD, TABLE_3, PaperRow
from .scores import METRICS, BenchmarkScores

_HIGHER_IS_BETTER = ("exact_match", "soft_em", "rank_correct")


def main_table(comparison: Comparison, *, name: str, caption: str, floors: Sequence[str] = ()) -> Table:
    """Tasks in rows, methods in columns; then the mean over tasks, over query sets (paper, tables 1 and 2).

    Args:
        floors: methods of the comparison that are no contestants: the highest of the others is bold.
    """
    methods = comparison.methods
    rows: list[list] = [[task, *(comparison.score(method, task) for method in methods)] for task in comparison.tasks]
    summaries = [comparison.summary(method) for method in methods]
    for statistic in ("mean", "std", "median", "min", "max"):
        found = [None if summary is None else getattr(summary, statistic) for summary in summaries]
        rows.append([f"All@{statistic}", *found])
    bold = set()
    if comparison.metric in _HIGHER_IS_BETTER:
        for row in [*range(len(comparison.tasks)), len(comparison.tasks)]:
            scores = {
                column: round(rows[row][column], 2)
                for column, method in enumerate(methods, start=1)
                if method not in floors and rows[row][column] is not None
            }
            bold |= {(row, column) for column, score in scores.items() if score == max(scores.values())}
    return Table(name, ["task", *methods], rows, caption, comparison.notes, frozenset(bold))


def intervals_table(comparisons: Sequence[Comparison], *, name: str, caption: str) -> Table:
    """Methods in rows; mean and interval in each metric."""
    header = ["method"]
    for comparison in comparisons:
        header += [METRICS[comparison.metric].label, "low", "high"]
    rows = []
    for method in comparisons[0].methods:
        row: list = [method]
        for comparison in comparisons:
            row += comparison.interval(method) or (None, None, None)
        rows.append(row)
    return Table(name, header, rows, caption)


def differences_table(differences: Sequence[Difference], *, name: str, caption: str, alpha: float = 0.05) -> Table:
    """Pairs of methods in rows: the difference of their means, and on how many tasks there is one."""
    header = ["pair", "difference", "low", "high", "p", "p corrected", "tasks better", "tasks worse"]
    rows = []
    for difference in differences:
        clear = [found.mean for found in difference.by_task.values() if found.corrected_p < alpha]
        counts = [sum(mean > 0 for mean in clear), sum(mean < 0 for mean in clear)]
        rows.append([pair_name(difference), *_estimate(difference.overall), *counts])
    return Table(name, header, rows, caption)


def task_differences_table(difference: Difference, *, name: str, caption: str) -> Table:
    """Tasks in rows: the difference of a pair on each."""
    rows = [[task, *_estimate(found)] for task, found in difference.by_task.items()]
    rows.append(["mean", *_estimate(difference.overall)[:4], ""])
    return Table(name, ["task", "difference", "low", "high", "p", "p corrected"], rows, caption)


def ablations_table(comparison: Comparison, main: str, *, name: str, caption: str) -> Table:
    """The variants of a method in rows, with their difference from it (paper, table 3).

    Args:
        comparison: of the method and its variants.
        main: the method that is varied.
    """
    others = [method for method in comparison.methods if method != main]
    changes = {found.one: found.overall for found in comparison.differences([(other, main) for other in others])}
    beside = comparison.metric == "soft_em" and any(method in TABLE_3 for method in others)
    rows = []
    for method in (main, *others):
        row: list = [method, *(comparison.summary(method) or [None] * 5), *_estimate(changes.get(method))]
        rows.append(row + ([TABLE_3.get(method, (None,))[0]] if beside else []))
    header = ["method", "All@mean", "std", "median", "min", "max", "difference", "low", "high", "p", "p corrected"]
    return Table(name, header + ["paper's All@mean"] * beside, rows, caption, comparison.notes)


def paper_table(comparison: Comparison, *, name: str) -> Table | None:
    """SoftEM beside the paper's, of the methods that it has; None where there are none.

    Args:
        comparison: on tasks of [`TABLE_1`] alone.
    """
    methods = [method for method in comparison.methods if method in COLUMNS]
    if not methods:
        return None

    def row(name: str, ours: Sequence[float | None], paper: PaperRow) -> list:
        pairs = [(mine, getattr(paper, COLUMNS[method])) for mine, method in zip(ours, methods, strict=True)]
        return [name, *(score for pair in pairs for score in pair), paper.t0_3b]

    rows = [
        row(task, [comparison.score(method, task) for method in methods], TABLE_1[task]) for task in comparison.tasks
    ]
    tasks = comparison.complete_tasks
    if tasks:
        summaries = [comparison.summary(method) for method in methods]
        means = [None if summary is None else summary.mean for summary in summaries]
        paper_means = PaperRow(*map(float, np.mean([TABLE_1[task] for task in tasks], axis=0)))
        rows.append(row("All@mean", means, paper_means))
        if len(tasks) == len(TABLE_1):
            for statistic, paper in TABLE_1_SPREAD.items():
                rows.append(
                    row(f"All@{statistic}", [found and getattr(found, statistic) for found in summaries], paper)
                )
        if methods[0] == "none":
            gains = [None if mean is None or means[0] is None else Change(mean - means[0]) for mean in means]
            paper_gains = PaperRow(*(Change(mean - paper_means.bart0) for mean in paper_means))
            rows.append(row("gain over none", gains, paper_gains._replace(t0_3b=None)))
    header = ["task", *(f"{method}{whose}" for method in methods for whose in ("", " (paper)")), "T0-3B (paper)"]
    caption = (
        "SoftEM beside the paper's (Lin et al. 2022, table 1): theirs is another and larger model (BART-large, 0.4 B "
        "parameters). none is their BART0, dense their ReCross-dagger."
    )
    return Table(name, header, rows, caption, comparison.notes)


def outputs_table(scores: BenchmarkScores, comparisons: Sequence[Comparison], *, name: str, caption: str) -> Table:
    """What the answers look like: methods in rows; means over tasks.

    Args:
        comparisons: those of the share in the answer set and of the mean length.
    """
    header = ["method", *(METRICS[comparison.metric].label for comparison in comparisons), "empty (%)"]
    rows = []
    for method in comparisons[0].methods:
        summaries = [comparison.summary(method) for comparison in comparisons]
        empty, repeated = [], []
        for task in scores.tasks:
            for answers in scores.predictions(method, task).values():
                counts = Counter(answer.strip() for answer in answers)
                empty.append(counts[""] / len(answers))
                repeated.append(counts.most_common(1)[0][1] / len(answers))
        shares = [100 * float(np.mean(found)) if found else None for found in (empty, repeated)]
        rows.append([method, *(summary and summary.mean for summary in summaries), *shares])
    notes = list(dict.fromkeys(note for comparison in comparisons for note in comparison.notes))
    return Table(name, [*header, "most frequent answer (%)"], rows, caption, notes)


def data_table(scores: BenchmarkScores, cells: Iterable[Cell], *, name: str, caption: str) -> Table:
    """Tasks in rows: how many test examples, of how many source examples, with how many query sets."""
    query_sets, num_queries = defaultdict(set), defaultdict(set)
    for cell in cells:
        if cell.kind == "method":
            query_sets[cell.task].add(cell.query_set)
            num_queries[cell.task].add(cell.num_queries)
    rows = []
    for task in scores.tasks:
        sizes = ", ".join(map(str, sorted(num_queries[task] - {None})))
        rows.append([task, scores.num_examples(task), scores.num_sources(task), len(query_sets[task]), sizes])
    return Table(name, ["task", "test examples", "distinct sources", "query sets", "|Q|"], rows, caption)


def seconds_table(cells: Iterable[Cell], *, name: str, caption: str) -> Table:
    """Methods in rows, stages in columns: mean seconds of a finished cell."""
    seconds: dict[str, list[dict[str, float]]] = defaultdict(list)
    for cell in cells:
        if cell.seconds and cell.error is None:
            seconds[cell.method].append(dict(cell.seconds))
    stages = list(dict.fromkeys(stage for found in seconds.values() for each in found for stage in each))
    rows = []
    for method, found in seconds.items():
        by_stage = [
            float(np.mean([each.get(stage, 0.0) for each in found])) if any(stage in each for each in found) else None
            for stage in stages
        ]
        all_stages = [sum(each.values()) for each in found]
        rows.append([method, len(found), *by_stage, float(np.mean(all_stages)), float(sum(all_stages))])
    return Table(name, ["method", "cells", *stages, "a cell", "all cells"], rows, caption)


def pair_name(difference: Difference) -> str:
    """As it stands in tables and pictures."""
    return f"{difference.one} - {difference.other}"


def p_text(p: float) -> str:
    """A p-value as it stands in tables."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _estimate(found: Estimate | None) -> list:
    if found is None:
        return [None] * 5
    return [*map(Change, found[:3]), p_text(found.p), p_text(found.corrected_p)]
