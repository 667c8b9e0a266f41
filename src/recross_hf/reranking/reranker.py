"""Rerankers: they choose, of many retrieved candidates, those to learn from.

To add one, subclass [`Reranker`] and write `rank`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset

from ..core.distributed import process_state
from .selection import Selection, by_example


class Reranker(ABC):
    """Scores candidates for a query set; the paper's is a cross-encoder (section 3.3).

    The base class chooses texts and keeps the best with their provenance; a subclass writes [`Reranker.rank`].

    Attributes:
        include_answers: Whether `rank` reads candidates with their answers, or their inputs alone.
    """

    include_answers = False

    @property
    def can_be_saved(self) -> bool:
        """Whether a folder can hold the reranker: one that can writes itself by `save_pretrained`, and is opened again as a
        `CrossEncoderReranker`.
        """
        return False

    def identity(self) -> dict[str, Any]:
        """Settings that the scores depend on, as JSON values: whether another run would have scored alike.

        A subclass that has settings adds them to those of the base class, which knows its class alone.
        """
        return {"class": type(self).__name__}

    @abstractmethod
    def rank(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Scores each candidate for all queries together.

        A score may not depend on the other candidates: under `accelerate launch` each process gets some of them. The method
        may not wait for the other processes.

        Args:
            queries: Inputs of the query examples, at least one.
            candidates: Texts of upstream examples, see [`candidate_texts`].

        Returns:
            Scores `[num_candidates]` that rise with relevance. Selection by task takes them as log odds of being of help: 0 is even.
        """

    def rerank(
        self, queries: Sequence[str], retrieved: Dataset, num_kept: int, *, select: Selection = by_example
    ) -> Dataset:
        """Keeps the best `num_kept` of the retrieved examples, best first.

        Args:
            queries: Inputs of the query examples, at least one.
            retrieved: Candidates that [`Retriever.retrieve`] returned.
            num_kept: Number of examples to keep.
            select: Selection by the scores, of single examples or of whole tasks; see `selection`.

        Returns:
            The examples with a new `rank` and their `score`; of equal ones, the one that was retrieved first comes first.

        Raises:
            ValueError: `rank` did not return one finite score for each candidate.
        """
        texts = candidate_texts(retrieved, self.include_answers)
        return select(retrieved, self._scores(queries, texts), num_kept)

    def rerank_in_processes(
        self, queries: Sequence[str], retrieved: Dataset, num_kept: int, *, select: Selection = by_example
    ) -> Dataset:
        """Does what [`Reranker.rerank`] does on all processes of `accelerate launch`; each must call it with the same arguments.

        Args:
            queries: Inputs of the query examples, at least one.
            retrieved: Candidates that [`Retriever.retrieve`] returned.
            num_kept: Number of examples to keep.
            select: Selection by the scores, of single examples or of whole tasks.
        """
        state = process_state()
        if state.num_processes == 1:
            return self.rerank(queries, retrieved, num_kept, select=select)
        texts = candidate_texts(retrieved, self.include_answers)
        # The processes share the distinct texts, for several queries bring the same candidate.
        distinct = list(dict.fromkeys(texts))
        mine = distinct[state.process_index :: state.num_processes]
        scored = [(text, score) for text, score in zip(mine, self._scores(queries, mine), strict=True)] if mine else []
        score_of = dict(gather_object(scored))
        return select(retrieved, np.array([score_of[text] for text in texts]), num_kept)

    def _scores(self, queries: Sequence[str], texts: list[str]) -> np.ndarray:
        scores = np.asarray(self.rank(list(queries), texts), dtype=np.float64)
        if scores.shape != (len(texts),) or not np.isfinite(scores).all():
            raise ValueError(
                f"Expected {type(self).__name__}.rank to give {len(texts)} finite scores, one a candidate, found an array "
                f"{list(scores.shape)}{'' if np.isfinite(scores).all() else ' with NaN or infinity'}. Return one number for each "
                "candidate; a cross-encoder gives NaN where its weights or its half precision overflow."
            )
        return scores


class RememberingReranker(Reranker):
    """A reranker that scores a candidate once for a query set, for comparisons of selections by the same scores.

    It remembers the scores of the last query set alone.

    Args:
        reranker: Reranker that scores.
    """

    def __init__(self, reranker: Reranker) -> None:
        self.reranker = reranker
        self.include_answers = reranker.include_answers
        self._queries: list[str] = []
        self._scores_of: dict[str, float] = {}

    def identity(self) -> dict[str, Any]:
        """Settings of the reranker that scores: to remember its scores does not change them."""
        return self.reranker.identity()

    def rank(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Scores the candidates, those that were scored for these queries before from memory."""
        if list(queries) != self._queries:
            self._queries, self._scores_of = list(queries), {}
        missing = [text for text in dict.fromkeys(candidates) if text not in self._scores_of]
        if missing:
            scores = self.reranker._scores(queries, missing)
            self._scores_of.update(zip(missing, scores.tolist(), strict=True))
        return np.array([self._scores_of[text] for text in candidates])


def candidate_texts(examples: Dataset, include_answers: bool) -> list[str]:
    """Texts that a reranker reads: each example's input, or its input and its first reference."""
    inputs: list[str] = examples["input"][:]
    if not include_answers:
        return inputs
    return [with_answer(text, accepted[0]) for text, accepted in zip(inputs, examples["references"][:], strict=True)]


def with_answer(text: str, answer: str) -> str:
    """Joins an input and its answer to one text."""
    return f"{text} {answer}"
