"""Which of the candidates are learned from: functions of the candidates, their scores and how many to keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from datasets import Dataset, Features, Value

Selection = Callable[[Dataset, np.ndarray, int], Dataset]


def by_example(candidates: Dataset, scores: np.ndarray, num_kept: int) -> Dataset:
    """The examples with the highest scores, each on its own (paper, section 3.3); ties in the order of retrieval.

    Args:
        candidates: what [`Retriever.retrieve`] returned.
        scores: one a candidate, rising with relevance.
        num_kept: how many to keep; all, where there are fewer.

    Returns:
        The examples, best first, with their `score` and a new `rank`.
    """
    return _kept(candidates, scores, np.argsort(-scores, kind="stable")[:num_kept])


def by_task(candidates: Dataset, scores: np.ndarray, num_kept: int) -> Dataset:
    """Whole upstream tasks, that with the most candidates expected to help first; within a task, as retrieved.

    A task's weight is the sum of sigmoid(score) over its candidates, duplicates counted. If all scores are equal, as without a
    reranker, that is a vote: the more of what is near the queries belongs to a task, the sooner it is chosen. Scores
    of single candidates are noisy, and choosing by them mixes what is left of many tasks; their sums over tasks are not.

    Args and returns as [`by_example`]; tasks of equal weight in the order of retrieval.
    """
    tasks, first, task_of = np.unique(candidates["task"][:], return_index=True, return_inverse=True)
    chances = np.exp(-np.logaddexp(0.0, -scores))  # sigmoid, without overflow
    weights = np.bincount(task_of, weights=chances, minlength=len(tasks))
    place = np.empty(len(tasks), dtype=np.int64)
    place[np.lexsort((first, -weights))] = np.arange(len(tasks))
    return _kept(candidates, scores, np.argsort(place[task_of], kind="stable")[:num_kept])


SELECTIONS: dict[str, Selection] = {"example": by_example, "task": by_task}


def _kept(candidates: Dataset, scores: np.ndarray, rows: np.ndarray) -> Dataset:
    columns = candidates.select(rows).to_dict() | {"rank": list(range(len(rows))), "score": scores[rows].tolist()}
    features = Features({**candidates.features, "rank": Value("int64"), "score": Value("float64")})
    return Dataset.from_dict(columns, features=features)
