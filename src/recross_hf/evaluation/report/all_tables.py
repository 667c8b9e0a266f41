"""`ReportTables`: all tables of a report, with their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...core.metrics import METRICS
from ...core.tables import Table
from ..results import SHARED
from .analysis import DEGENERATE, Analysis
from .comparison import Comparison
from .paper_results import TABLE_2_MEANS, TABLE_2_TASKS
from .tables import (
    ablations_table,
    data_table,
    differences_table,
    intervals_table,
    main_table,
    outputs_table,
    pair_name,
    paper_table,
    seconds_table,
    task_differences_table,
)


@dataclass(frozen=True)
class ReportTables:
    """The tables of a report, in its order.

    Args:
        main: Scores in each metric.
        paper: Scores on the tasks of the paper's tables.
        intervals: Means with their intervals.
        differences: Differences of pairs in each metric.
        task_differences: Differences by task, a table for each pair.
        ablations: Scores of variants.
        outputs: Shares of conspicuous answers.
        data: Numbers of examples.
        seconds: Wall time.
        beside_paper: Scores beside the paper's; None where it has none of these tasks or methods.
    """

    main: Sequence[Table]
    paper: Sequence[Table]
    intervals: Table
    differences: Sequence[Table]
    task_differences: Sequence[Table]
    ablations: Sequence[Table]
    outputs: Table
    data: Table
    seconds: Table
    beside_paper: Table | None

    def all(self) -> list[Table]:
        """All tables in one list."""
        tables = [*self.main, *self.paper, self.intervals, *self.differences, *self.task_differences, *self.ablations]
        tables += [self.outputs, self.data, self.seconds]
        return tables if self.beside_paper is None else [*tables, self.beside_paper]


def make_tables(analysis: Analysis) -> ReportTables:
    """Makes the tables of a report."""
    scores, roles, level = analysis.scores, analysis.roles, analysis.settings.level
    return ReportTables(
        main=[
            main_table(comparison, name=f"main-{metric}", caption=_caption(comparison), floors=roles.floors)
            for metric, comparison in analysis.known.items()
        ],
        paper=_paper_tables(analysis),
        intervals=intervals_table(
            [comparison for metric, comparison in analysis.known.items() if metric not in DEGENERATE],
            name="intervals",
            caption=f"Means with {100 * level:g} % intervals, by bootstrap over query sets and source examples.",
        ),
        differences=_difference_tables(analysis),
        task_differences=_task_difference_tables(analysis),
        ablations=_ablation_tables(analysis),
        outputs=outputs_table(
            scores,
            analysis.outputs,
            name="outputs",
            caption="Shares of conspicuous answers, mean over tasks: a method that answers all with one text, or with lists, shows "
            "here.",
        ),
        data=data_table(
            scores,
            analysis.cells,
            name="data",
            caption="Test examples may be several renderings of one source example; intervals draw these together.",
        ),
        seconds=seconds_table(
            analysis.cells, name="seconds", caption="Wall time in seconds, mean of the finished cells."
        ),
        beside_paper=None
        if analysis.beside_paper is None
        else paper_table(analysis.beside_paper, name="beside-paper"),
    )


def _caption(comparison: Comparison) -> str:
    sets = [number for number in comparison.complete_sets if number != SHARED]
    over = f"mean of {len(sets)} query sets" if len(sets) > 1 else "one query set"
    return f"{METRICS[comparison.metric].label}, {over}. The last columns are answers that need no model."


def _paper_tables(analysis: Analysis) -> list[Table]:
    tables = []
    for number, comparisons in analysis.paper_groups.items():
        for metric, comparison in comparisons.items():
            caption = f"The tasks of the paper's table {number}. {_caption(comparison)}"
            if number == 2 and metric == "soft_em" and len(comparison.tasks) == len(TABLE_2_TASKS):
                theirs = ", ".join(f"{model} {mean:.2f}" for model, mean in TABLE_2_MEANS.items())
                caption += f" The paper's means, of other and larger models: {theirs}."
            name = f"table{number}-{metric}"
            tables.append(main_table(comparison, name=name, caption=caption, floors=analysis.roles.floors))
    return tables


def _difference_tables(analysis: Analysis) -> list[Table]:
    alpha = 1 - analysis.settings.level
    return [
        differences_table(
            differences,
            name=f"differences-{metric}",
            caption=f"Paired differences in {METRICS[metric].label}, mean over tasks; tasks with a corrected p below {alpha:.2g} count "
            "as better or worse.",
            alpha=alpha,
        )
        for metric, differences in analysis.differences.items()
    ]


def _task_difference_tables(analysis: Analysis) -> list[Table]:
    metric = analysis.settings.metric
    return [
        task_differences_table(
            difference,
            name=f"differences-{metric}-{number:02d}",
            caption=f"{pair_name(difference)}: difference in {METRICS[metric].label} by task; p-values corrected for "
            f"{len(difference.by_task)} tasks (Holm).",
        )
        for number, difference in enumerate(analysis.main_differences, start=1)
    ]


def _ablation_tables(analysis: Analysis) -> list[Table]:
    return [
        ablations_table(
            comparison,
            ablation.main,
            name=f"ablations-{metric}-{ablation.number:02d}",
            caption=f"Ablations of {ablation.main}: {METRICS[metric].label}, with the difference from {ablation.main} (corrected for "
            "their number).",
        )
        for ablation in analysis.ablations
        for metric, comparison in ablation.comparisons.items()
    ]
