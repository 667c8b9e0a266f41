"""`ReportTexts`: all sentences and lists of a report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..results import Cell
from .analysis import Analysis
from .findings import below_floors, contributions, headline, reservations
from .scores import EvaluationScores

_LONGEST_ANSWER = 200
_NUM_SAMPLES = 4


class Samples(NamedTuple):
    """Some answers on a task, as rows under a header."""

    task: str
    header: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class ReportTexts:
    """The sentences and lists of a report.

    Args:
        headline: Sentence on whether retrieval augmentation helps.
        contributions: Sentences on the steps of the method.
        warnings: Sentences on what the intervals do not cover, on methods below floors, and on contamination.
        below_floors: Sentences on methods below floors.
        overlaps: Contamination by task, and how it was handled.
        searched: Names of the tasks that were searched for contamination.
        failures: Cells that failed.
        samples: Some answers on each task.
        method_settings: Settings of the first finished cell of each method, as JSON.
    """

    headline: str
    contributions: Sequence[str]
    warnings: Sequence[str]
    below_floors: Sequence[str]
    overlaps: Sequence[tuple[str, str]]
    searched: Sequence[str]
    failures: Sequence[Cell]
    samples: Sequence[Samples]
    method_settings: Sequence[tuple[str, str]]


def write_texts(analysis: Analysis) -> ReportTexts:
    """Writes the sentences of a report, and lists what readers look up."""
    cells, roles = analysis.cells, analysis.roles
    floors = [
        sentence
        for metric in ("soft_em", "exact_match")
        for sentence in below_floors(analysis.comparisons[metric], roles)
    ]
    overlaps = _overlaps(cells)
    warnings = [*reservations(analysis.main, cells), *floors, *(f"{task}: {text}." for task, text in overlaps)]
    return ReportTexts(
        headline=headline(analysis.main, roles, analysis.main_differences),
        contributions=contributions(analysis.main, roles, analysis.main_differences),
        warnings=list(dict.fromkeys(warnings)),
        below_floors=floors,
        overlaps=overlaps,
        searched=list(dict.fromkeys(cell.task for cell in cells if "overlaps" in cell.details)),
        failures=[cell for cell in cells if cell.error is not None],
        samples=_samples(analysis.scores, roles.compared),
        method_settings=_method_settings(cells),
    )


def _overlaps(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    texts: dict[str, str] = {}
    for cell in cells:
        overlap = cell.details.get("overlaps", {})
        counts = {name: value for name, value in overlap.items() if isinstance(value, int) and value}
        if counts:
            listed = ", ".join(f"{name.replace('_', ' ')}: {setting_text(value)}" for name, value in counts.items())
            texts[cell.task] = f"{listed} (handling: {overlap.get('handling', 'not named')})"
    return list(texts.items())


def _samples(scores: EvaluationScores, methods: Sequence[str]) -> list[Samples]:
    """Some answers of the first query set, task by task."""
    samples = []
    for task in scores.tasks:
        by_method = {method: scores.predictions(method, task) for method in methods}
        answers = {method: by_set[min(by_set)] for method, by_set in by_method.items() if by_set}
        ids = scores.ids(task)
        # Rows are spread over the test set, which may be ordered.
        many = len(ids) >= _NUM_SAMPLES
        rows = [number * len(ids) // _NUM_SAMPLES for number in range(_NUM_SAMPLES)] if many else range(len(ids))
        table = [[_cut(ids[row]), *(_cut(texts[row]) for texts in answers.values())] for row in rows]
        if answers:
            samples.append(Samples(task, ["id", *answers], table))
    return samples


def _method_settings(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    settings: dict[str, str] = {}
    for cell in cells:
        if cell.error is None and "settings" in cell.details and cell.method not in settings:
            settings[cell.method] = json.dumps(cell.details["settings"], indent=2, default=str)
    return list(settings.items())


def setting_text(value: object) -> str:
    """The value of a setting for readers."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_ANSWER else f"{text[:_LONGEST_ANSWER]} [...]"
