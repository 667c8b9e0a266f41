"""Candidates of a query set: distinct upstream examples of other tasks, as a retriever or an earlier reranker chooses them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from datasets import Dataset

from ..reranking.reranker import Reranker
from ..retrieval.retriever import Retriever
from .arguments import SupervisionArguments


class CandidateSource:
    """Retrieves the candidates of query sets.

    Args:
        retriever: Retriever of upstream examples.
        reranker: Reranker of an earlier iteration, which chooses among `upsampling_ratio` times as many.
        args: Settings of the mining.
    """

    def __init__(self, retriever: Retriever, reranker: Reranker | None, args: SupervisionArguments) -> None:
        self.retriever = retriever
        self.reranker = reranker
        self.args = args
        self._tasks = retriever.tasks

    def candidates(self, inputs: Sequence[str], task: str) -> Dataset:
        """Retrieves distinct candidates of other tasks, in the retriever's order or the reranker's.

        Args:
            inputs: Inputs of the queries.
            task: Task of the queries.
        """
        args, retriever = self.args, self.retriever
        num_kept = num_retrieved = args.num_candidates
        if self.reranker is not None:
            num_retrieved = math.ceil(args.upsampling_ratio * num_kept)
        if task in self._tasks and not args.retrieve_own_task:
            if len(self._tasks) == 1:
                return retriever.rows.select(np.empty(0, dtype=np.int64))
            retriever = retriever.excluding([task])
        retrieved = _retrieve_distinct(retriever, inputs, num_retrieved)
        if args.retrieve_own_task:
            retrieved = retrieved.select([row for row, other in enumerate(retrieved["task"][:]) if other != task])
        if self.reranker is not None and len(retrieved):
            return self.reranker.rerank(inputs, retrieved, num_kept)
        return retrieved


def _retrieve_distinct(retriever: Retriever, inputs: Sequence[str], num_retrieved: int) -> Dataset:
    """Retrieves more until `num_retrieved` are distinct; an example that is near to several queries comes back often."""
    asked = num_retrieved
    while True:
        retrieved = retriever.retrieve(inputs, asked)
        first = np.sort(np.unique(retrieved["id"][:], return_index=True)[1])
        if len(first) >= num_retrieved or len(retrieved) < asked or asked >= len(inputs) * num_retrieved:
            return retrieved.select(first[:num_retrieved])
        asked *= 2
