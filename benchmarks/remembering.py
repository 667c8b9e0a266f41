"""A reranker for comparisons: the same candidates are scored once for all ways to select from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recross_hf import CrossEncoderReranker, Reranker


class Remembering(Reranker):
    """A reranker that remembers what it scored last."""

    def __init__(self, reranker: CrossEncoderReranker) -> None:
        self.reranker = reranker
        self.include_answers = reranker.include_answers
        self.asked: tuple[list[str], list[str]] | None = None

    def rank(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        if self.asked != (list(queries), list(candidates)):
            self.asked = (list(queries), list(candidates))
            self.scores = self.reranker.rank(queries, candidates)
        return self.scores
