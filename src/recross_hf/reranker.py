"""Rerankers: of many retrieved candidates, those to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from datasets import Dataset


class Reranker(Protocol):
    """Whatever scores candidates for a query set; the paper's is a cross-encoder (section 3.3)."""

    def rank(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Scores each candidate for all queries together: an array `[num_candidates]` that rises with relevance.

        Under `accelerate launch` the main process alone calls it: nothing in it may wait for the other processes.
        """
        ...


def rerank(reranker: Reranker, queries: Sequence[str], retrieved: Dataset, num_kept: int) -> Dataset:
    """The best `num_kept` of the retrieved examples, best first.

    Args:
        retrieved: what [`Retriever.retrieve`] returned.

    Returns:
        The examples with a new `rank` and their `score`; among equals, what was retrieved first comes first.

    Raises:
        ValueError: the reranker did not give one finite score a candidate.
    """
    scores = np.asarray(reranker.rank(list(queries), retrieved["input"][:]), dtype=np.float64)
    if scores.shape != (len(retrieved),) or not np.isfinite(scores).all():
        raise ValueError(
            f"Expected {type(reranker).__name__}.rank to give {len(retrieved)} finite scores, one a candidate, found an array "
            f"{list(scores.shape)}{'' if np.isfinite(scores).all() else ' with NaN or infinity'}."
        )
    best = np.argsort(-scores, kind="stable")[:num_kept]
    kept = retrieved.select(best).remove_columns("rank")
    return kept.add_column("rank", list(range(len(best)))).add_column("score", scores[best].tolist())
