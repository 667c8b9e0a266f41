"""The figures of a report as JSON values."""

from __future__ import annotations

from typing import Any

from ..._version import __version__
from .analysis import Analysis
from .comparison import Comparison, Difference
from .texts import ReportTexts


def summarize(analysis: Analysis, texts: ReportTexts) -> dict[str, Any]:
    """The content of `summary.json`: sentences, means with intervals by metric, differences, failed cells, contamination."""
    settings, scores = analysis.settings, analysis.scores
    return {
        "version": __version__,
        "headline": texts.headline,
        "parts": texts.contributions,
        "warnings": texts.warnings,
        "primary": analysis.roles.primary,
        "metric": settings.metric,
        "level": settings.level,
        "num_resamples": settings.num_resamples,
        "seed": settings.seed,
        "metrics": {
            metric: {
                "tasks": comparison.complete_tasks,
                "query_sets": comparison.complete_sets,
                "notes": comparison.notes,
                "methods": {method: _method_summary(comparison, method) for method in comparison.methods},
            }
            for metric, comparison in analysis.known.items()
        },
        "differences": {
            metric: [_difference_summary(difference) for difference in differences]
            for metric, differences in analysis.differences.items()
        },
        "tasks": {
            task: {"num_examples": scores.num_examples(task), "num_sources": scores.num_sources(task)}
            for task in scores.tasks
        },
        "failed": [
            {"method": cell.method, "task": cell.task, "query_set": cell.query_set, "error": cell.error}
            for cell in texts.failures
        ],
        "overlaps": dict(texts.overlaps),
    }


def _method_summary(comparison: Comparison, method: str) -> dict[str, Any]:
    summary, interval = comparison.summary(method), comparison.interval(method)
    means = None
    if summary is not None and interval is not None:
        means = {**summary._asdict(), "low": interval.low, "high": interval.high}
    return {"all": means, "by_task": {task: comparison.score(method, task) for task in comparison.tasks}}


def _difference_summary(difference: Difference) -> dict[str, Any]:
    return {
        "one": difference.one,
        "other": difference.other,
        "overall": None if difference.overall is None else difference.overall._asdict(),
        "by_task": {task: estimate._asdict() for task, estimate in difference.by_task.items()},
    }
