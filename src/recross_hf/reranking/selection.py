"""Selections: functions that choose the examples to learn from, of candidates, their scores and the number to keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from datasets import Dataset, Features, Value
from scipy.special import expit

Selection = Callable[[Dataset, np.ndarray, int], Dataset]


def by_example(candidates: Dataset, scores: np.ndarray, num_kept: int) -> Dataset:
    """Selects the examples with the highest scores, each on its own (paper, section 3.3); ties keep the order of retrieval.

    Args:
        candidates: Candidates that [`Retriever.retrieve`] returned.
        scores: Scores `[num_candidates]` that rise with relevance.
        num_kept: Number of examples to keep; where there are fewer, all are kept.

    Returns:
        The examples, best first, with their `score` and a new `rank`.
    """
    return _kept(candidates, scores, np.argsort(-scores, kind="stable")[:num_kept])


def by_task(candidates: Dataset, scores: np.ndarray, num_kept: int) -> Dataset:
    """Selects whole upstream tasks: the one with the most candidates expected to help comes first, its examples as retrieved.

    A task's weight is the sum of sigmoid(score) over its candidates, duplicates counted. If all scores are equal, as without a
    reranker, the weights are votes: the more of the nearest examples belong to a task, the sooner it is chosen. Scores
    of single candidates are noisy, and a selection by them mixes the rests of many tasks; their sums over tasks are less noisy.

    Args:
        candidates: Candidates that [`Retriever.retrieve`] returned.
        scores: Scores `[num_candidates]`, log odds of being of help.
        num_kept: Number of examples to keep; where there are fewer, all are kept.

    Returns:
        The examples, those of the best task first, with their `score` and a new `rank`; tasks of equal weight keep the order of
        retrieval.
    """
    tasks, first, task_of = np.unique(candidates["task"][:], return_index=True, return_inverse=True)
    weights = np.bincount(task_of, weights=expit(scores), minlength=len(tasks))
    rank_of = np.empty(len(tasks), dtype=np.int64)
    rank_of[np.lexsort((first, -weights))] = np.arange(len(tasks))
    return _kept(candidates, scores, np.argsort(rank_of[task_of], kind="stable")[:num_kept])


SELECTIONS: dict[str, Selection] = {"example": by_example, "task": by_task}
"""Selections by the names that `select_by` takes."""


def _kept(candidates: Dataset, scores: np.ndarray, rows: np.ndarray) -> Dataset:
    columns = candidates.select(rows).to_dict() | {"rank": list(range(len(rows))), "score": scores[rows].tolist()}
    features = Features({**candidates.features, "rank": Value("int64"), "score": Value("float64")})
    return Dataset.from_dict(columns, features=features)
