"""Comparison of methods on the cells that all of them have: means as in the paper, intervals, paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ...core.metrics import METRICS
from ...core.statistics import Interval, holm, interval_of, p_value, resampled_means
from ..results import SHARED
from .scores import EvaluationScores

# A method that lacks more than this share of the cells is left out of the means, rather than the tasks that it lacks.
_MOST_MISSING = 0.5


class Summary(NamedTuple):
    """A method's mean over tasks, summarized over query sets (paper, table 1: "All@...").

    `std` is the standard deviation of a sample. It is None where there are not several query sets, or where all share the answers.
    """

    mean: float
    std: float | None
    median: float
    min: float
    max: float


class Estimate(NamedTuple):
    """A paired difference: its interval, its p-value, and that p-value corrected for the number of comparisons."""

    mean: float
    low: float
    high: float
    p: float
    corrected_p: float


@dataclass(frozen=True)
class Difference:
    """The score of `one` minus that of `other`.

    Args:
        one: Name of the first method.
        other: Name of the method that is subtracted.
        overall: Mean over the complete tasks; None where a method is left out of the means. Its `corrected_p` is corrected for the
            number of pairs that were compared.
        by_task: Difference on each task where both have scores. Its `corrected_p` is corrected for the number of tasks.
    """

    one: str
    other: str
    overall: Estimate | None
    by_task: Mapping[str, Estimate] = field(default_factory=dict)


class Comparison:
    """Methods compared on tasks in one metric.

    Means are over the complete tasks and query sets, those that all methods finished. First the methods are left out that lack more
    than half of the cells; then the task or the query set that lacks most cells is left out, until no cell is missing. A task that is
    left out still has scores of its own.

    Args:
        scores: Scores to compare.
        metric: Name of a metric of [`METRICS`].
        methods: Names of the methods to compare; all by default.
        tasks: Names of the tasks to compare them on; all by default.
        num_resamples: Number of bootstrap resamples, see [`resampled_means`].
        level: Coverage of intervals.
        seed: Seed for drawing the resamples.

    Attributes:
        complete_methods: Methods that have means; so `complete_tasks` and `complete_sets` are the tasks and query sets of the means.
        query_sets: Query sets that each task's scores are means over, by task.
        notes: Sentences on what is left out of which means.
    """

    def __init__(
        self,
        scores: EvaluationScores,
        metric: str,
        methods: Sequence[str] | None = None,
        tasks: Sequence[str] | None = None,
        *,
        num_resamples: int = 10_000,
        level: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.metric, self.level = metric, level
        self.methods = list(scores.methods if methods is None else methods)
        self.tasks = list(scores.tasks if tasks is None else tasks)
        rows = [scores.methods.index(method) for method in self.methods]
        arrays = [_on_common_examples(scores.of(metric, task)[rows], scores.sources(task)) for task in self.tasks]
        # [methods, tasks, query sets], NaN where a cell is missing
        self._means = np.stack([_mean_over_examples(array) for array, _ in arrays], axis=1)
        self._complete = _complete_part(~np.isnan(self._means))
        kept_methods, kept_tasks, kept_sets = self._complete
        self.complete_methods = [self.methods[row] for row in kept_methods]
        self.complete_tasks = [self.tasks[column] for column in kept_tasks]
        self.complete_sets = [scores.query_sets[number] for number in kept_sets]
        self._sets = [
            kept_sets if column in kept_tasks else _common_sets(~np.isnan(self._means[kept_methods, column]))
            for column in range(len(self.tasks))
        ]
        self._arrays, self._num_resamples, self._seed = arrays, num_resamples, seed
        self._resampled: dict[int, np.ndarray] = {}
        self.query_sets = {
            task: [scores.query_sets[number] for number in sets]
            for task, sets in zip(self.tasks, self._sets, strict=True)
        }
        self.notes = self._notes(scores)

    def score(self, method: str, task: str) -> float | None:
        """Mean over a task's query sets; None where the method lacks one of them."""
        column = self.tasks.index(task)
        means = self._means[self.methods.index(method), column, self._sets[column]]
        return None if not len(means) or np.isnan(means).any() else float(means.mean())

    def by_query_set(self, method: str) -> np.ndarray:
        """Mean over the complete tasks for each complete query set; empty where the method is left out."""
        row = self.methods.index(method)
        kept_methods, kept_tasks, kept_sets = self._complete
        if row not in kept_methods or not len(kept_tasks):
            return np.zeros(0)
        return self._means[row][np.ix_(kept_tasks, kept_sets)].mean(axis=0)

    def summary(self, method: str) -> Summary | None:
        """The rows All@mean, std, median, min and max of the paper's tables; None where the method is left out."""
        means = self.by_query_set(method)
        if not len(means):
            return None
        std = float(means.std(ddof=1)) if len(means) > 1 and np.ptp(means) > 0 else None
        return Summary(float(means.mean()), std, float(np.median(means)), float(means.min()), float(means.max()))

    def interval(self, method: str, task: str | None = None) -> Interval | None:
        """The mean of a method, over the complete tasks or on one, with its interval; None where there is none."""
        mean = self._observed(method, task)
        return None if mean is None else interval_of(mean, self._resamples(method, task), level=self.level)

    def differences(self, pairs: Sequence[tuple[str, str]]) -> list[Difference]:
        """The first of each pair minus the second, overall and task by task."""
        overall = _corrected([self._difference(pair, None) for pair in pairs])
        differences = []
        for pair, estimate in zip(pairs, overall, strict=True):
            by_task = _corrected([self._difference(pair, task) for task in self.tasks])
            named = {task: one for task, one in zip(self.tasks, by_task, strict=True) if one is not None}
            differences.append(Difference(*pair, estimate, named))
        return differences

    def _difference(self, pair: tuple[str, str], task: str | None) -> Estimate | None:
        one, other = (self._observed(method, task) for method in pair)
        if one is None or other is None:
            return None
        resamples = self._resamples(pair[0], task) - self._resamples(pair[1], task)
        return Estimate(*interval_of(one - other, resamples, level=self.level), p_value(resamples), 1.0)

    def _observed(self, method: str, task: str | None) -> float | None:
        if task is not None:
            return self.score(method, task)
        summary = self.summary(method)
        return None if summary is None else summary.mean

    def _resamples(self, method: str, task: str | None) -> np.ndarray:
        columns = self._complete[1] if task is None else [self.tasks.index(task)]
        row = self.methods.index(method)
        return np.mean([self._resamples_of_task(int(column))[:, row] for column in columns], axis=0)

    def _resamples_of_task(self, column: int) -> np.ndarray:
        """`[num_resamples, methods]`, NaN for methods that lack a query set."""
        if column not in self._resampled:
            array, sources = self._arrays[column]
            sets = self._sets[column]
            has_all = ~np.isnan(self._means[:, column][:, sets]).any(axis=1)
            means = np.full((self._num_resamples, len(self.methods)), np.nan)
            # Each task has a stream of its own, so that the order of questions changes nothing.
            means[:, has_all] = resampled_means(
                array[has_all][:, sets],
                sources,
                num_resamples=self._num_resamples,
                rng=np.random.default_rng([self._seed, column]),
                stretch_sets=True,
            )
            self._resampled[column] = means
        return self._resampled[column]

    def _notes(self, scores: EvaluationScores) -> list[str]:
        name, notes = METRICS[self.metric].name, []
        lacking = [method for method in self.methods if method not in self.complete_methods]
        if not self.complete_tasks:
            return [f"No means of {name}: no task was finished by all methods with a query set."]
        if lacking:
            notes.append(f"Left out of the means of {name}, since more than half is missing: {', '.join(lacking)}.")
        dropped = [task for task in self.tasks if task not in self.complete_tasks]
        if dropped:
            notes.append(
                f"Means of {name} are over the {len(self.complete_tasks)} tasks with scores of all methods in them, without: "
                f"{', '.join(dropped)}."
            )
        if len(self.complete_sets) < len(scores.query_sets):
            kept = ", ".join(map(str, self.complete_sets))
            notes.append(f"Means of {name} are over the query sets with scores of all methods in them: {kept}.")
        for task in dropped:
            sets = self.query_sets[task]
            if sets and sets != [SHARED] and len(sets) < len(scores.query_sets):
                notes.append(f"On {task}, {name} is the mean of the query sets {', '.join(map(str, sets))}.")
        return notes


def _on_common_examples(scores: np.ndarray, sources: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out the examples that a finished cell has no score of, for example where no answer is known."""
    finished = ~np.isnan(scores).all(axis=2)
    scored = ~np.isnan(scores[finished]).any(axis=0)
    return scores[:, :, scored], sources[scored]


def _mean_over_examples(scores: np.ndarray) -> np.ndarray:
    return scores.mean(axis=2) if scores.shape[2] else np.full(scores.shape[:2], np.nan)


def _common_sets(present: np.ndarray) -> np.ndarray:
    """Indices of the query sets that are there for all methods that have any, of `present` `[methods, query sets]`."""
    present = present[present.any(axis=1)]
    return np.flatnonzero(present.all(axis=0)) if len(present) else np.zeros(0, dtype=np.int64)


def _complete_part(present: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the methods, tasks and query sets that stay, so that no cell `[methods, tasks, query sets]` is missing."""
    # A task that no method has, for example one without answer sets, says nothing against a method.
    any_task = present.any(axis=(0, 2))
    share = 1 - present[:, any_task].mean(axis=(1, 2)) if any_task.any() else np.ones(len(present))
    methods = np.flatnonzero(share <= _MOST_MISSING)
    tasks, sets = np.flatnonzero(any_task), np.arange(present.shape[2])
    if not len(methods):
        tasks = tasks[:0]
    while len(tasks) and len(sets):
        missing = ~present[np.ix_(methods, tasks, sets)]
        if not missing.any():
            break
        by_task, by_set = missing.mean(axis=(0, 2)), missing.mean(axis=(0, 1))
        if by_task.max() >= by_set.max():
            tasks = np.delete(tasks, by_task.argmax())
        else:
            sets = np.delete(sets, by_set.argmax())
    return methods, tasks if len(sets) else tasks[:0], sets if len(tasks) else sets[:0]


def _corrected(estimates: Sequence[Estimate | None]) -> list[Estimate | None]:
    corrected = iter(holm([estimate.p for estimate in estimates if estimate is not None]))
    return [None if estimate is None else estimate._replace(corrected_p=next(corrected)) for estimate in estimates]
