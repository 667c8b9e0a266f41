"""`Analysis`: all comparisons that a report shows, before anything is written or drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...core.metrics import METRICS
from ..results import Cell, EvaluationResults
from .comparison import Comparison, Difference
from .findings import Roles, default_pairs, roles_of
from .paper_results import TABLE_1, TABLE_2_TASKS
from .scores import EvaluationScores

DEGENERATE = ("in_answers", "num_words")
"""Metrics in which a method shows that answers all with one text, or with lists."""


@dataclass(frozen=True)
class AnalysisSettings:
    """How methods are compared.

    Args:
        metric: Name of the metric that the first sentence and the pictures are in.
        num_resamples: Number of bootstrap resamples.
        level: Coverage of intervals.
        seed: Seed for drawing the resamples.

    Raises:
        ValueError: There is no such metric.
    """

    metric: str = "exact_match"
    num_resamples: int = 10_000
    level: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ValueError(f"Expected a metric among {', '.join(METRICS)}, found {self.metric!r}.")

    @property
    def metrics(self) -> list[str]:
        """The metric and SoftEM, which is the paper's."""
        return list(dict.fromkeys([self.metric, "soft_em"]))

    def compare(
        self,
        scores: EvaluationScores,
        metric: str,
        methods: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
    ) -> Comparison:
        """A comparison of methods in a metric with these settings."""
        return Comparison(
            scores, metric, methods, tasks, num_resamples=self.num_resamples, level=self.level, seed=self.seed
        )


@dataclass(frozen=True)
class Ablation:
    """Variants of one method.

    Args:
        main: Name of the method that is varied.
        number: Number in the names of the files.
        comparisons: Comparisons of the method and its variants by metric.
        beside_base: Comparison in the report's metric with the base among the methods.
    """

    main: str
    number: int
    comparisons: Mapping[str, Comparison]
    beside_base: Comparison


@dataclass(frozen=True)
class Analysis:
    """Methods compared in every metric.

    Args:
        settings: How methods were compared.
        cells: Cells of the results.
        scores: Scores of the results.
        roles: Roles of the methods.
        comparisons: Comparisons of the methods and the floors by metric.
        pairs: Pairs of methods whose difference is looked at.
        differences: Differences of the pairs, in the report's metric and in SoftEM.
        ablations: Ablations of the methods that were varied.
        paper_groups: Comparisons by metric on the tasks of one of the paper's tables, by its number; only where other tasks were
            tested, too.
        beside_paper: Comparison in SoftEM on the tasks of the paper's table 1; None where none of them was tested.
        outputs: Comparisons in the metrics of [`DEGENERATE`].
    """

    settings: AnalysisSettings
    cells: Sequence[Cell]
    scores: EvaluationScores
    roles: Roles
    comparisons: Mapping[str, Comparison]
    pairs: Sequence[tuple[str, str]]
    differences: Mapping[str, Sequence[Difference]]
    ablations: Sequence[Ablation]
    paper_groups: Mapping[int, Mapping[str, Comparison]]
    beside_paper: Comparison | None
    outputs: Sequence[Comparison]

    @property
    def main(self) -> Comparison:
        """The comparison in the report's metric."""
        return self.comparisons[self.settings.metric]

    @property
    def main_differences(self) -> Sequence[Difference]:
        """The differences in the report's metric."""
        return self.differences[self.settings.metric]

    @property
    def known(self) -> dict[str, Comparison]:
        """The comparisons in metrics that have means; there are none where, for example, no answer choices are known."""
        return {metric: comparison for metric, comparison in self.comparisons.items() if comparison.complete_tasks}


def analyze(
    results: EvaluationResults,
    settings: AnalysisSettings,
    *,
    primary: str | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> Analysis:
    """Compares the methods of the results.

    Args:
        results: Results to analyze.
        settings: How methods are compared.
        primary: Name of the method that the results are about, see [`roles_of`].
        pairs: Pairs of methods whose difference is looked at; by default those of [`default_pairs`].

    Raises:
        ValueError: Cells and predictions do not fit, or there is no method of a name.
    """
    roles, scores = roles_of(results.cells, primary), EvaluationScores(results)
    contestants = roles.compared + roles.floors
    pairs = list(default_pairs(roles) if pairs is None else pairs)
    for name in {name for pair in pairs for name in pair} - set(contestants):
        raise ValueError(f"Expected pairs of the methods {', '.join(contestants)}, found {name!r} in one.")
    comparisons = {metric: settings.compare(scores, metric, contestants) for metric in METRICS}
    in_paper = [task for task in scores.tasks if task in TABLE_1]
    return Analysis(
        settings=settings,
        cells=results.cells,
        scores=scores,
        roles=roles,
        comparisons=comparisons,
        pairs=pairs,
        differences={metric: comparisons[metric].differences(pairs) for metric in settings.metrics},
        ablations=_ablations(scores, roles, settings),
        paper_groups=_paper_groups(scores, contestants, settings),
        beside_paper=settings.compare(scores, "soft_em", roles.compared, in_paper) if in_paper else None,
        outputs=[settings.compare(scores, metric, roles.compared) for metric in DEGENERATE],
    )


def _ablations(scores: EvaluationScores, roles: Roles, settings: AnalysisSettings) -> list[Ablation]:
    ablations = []
    base = [roles.base] if roles.base else []
    for number, (main, variants) in enumerate(roles.variants.items(), start=1):
        methods = [main, *variants] if main in scores.methods else variants
        comparisons = {metric: settings.compare(scores, metric, methods) for metric in settings.metrics}
        beside_base = settings.compare(scores, settings.metric, [*base, *methods])
        ablations.append(Ablation(main, number, comparisons, beside_base))
    return ablations


def _paper_groups(
    scores: EvaluationScores, methods: Sequence[str], settings: AnalysisSettings
) -> dict[int, dict[str, Comparison]]:
    groups = {}
    for number, names in ((1, tuple(TABLE_1)), (2, TABLE_2_TASKS)):
        tasks = [task for task in scores.tasks if task in names]
        if tasks and len(tasks) < len(scores.tasks):
            groups[number] = {
                metric: settings.compare(scores, metric, methods, tasks) for metric in ("soft_em", "exact_match")
            }
    return groups
