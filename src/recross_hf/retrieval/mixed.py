"""Replay: what a retriever finds, mixed with random upstream examples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Self

import numpy as np

from .aggregation import Ranking
from .retriever import Retriever


class MixedRetriever(Retriever):
    """A share of random upstream examples among those that another retriever finds, against forgetting (replay; Scialom et al. 2022).

    ```python
    MixedRetriever(DenseRetriever(index), share=0.5, seed=0).retrieve(inputs, num_retrieved=512)
    ```

    Those that the retriever finds come first. The others are drawn among the rest, without replacement.

    Args:
        retriever: Retriever of the other examples; what it may not retrieve is not drawn, either.
        share: Share of the random examples, from 0 to 1.
        seed: Seed for drawing.

    Raises:
        ValueError: The share is none.
    """

    def __init__(self, retriever: Retriever, *, share: float = 0.5, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"Expected a share of random examples from 0 to 1, found {share}.")
        super().__init__(retriever.rows)
        self.retriever, self.share, self.seed = retriever, share, seed
        self.uses_inputs = retriever.uses_inputs and share < 1

    def excluding(self, tasks: Collection[str] = (), ids: Collection[str] = ()) -> Self:
        """The same retriever with more tasks and examples excluded, from what is found and from what is drawn."""
        narrowed = super().excluding(tasks, ids)
        narrowed.retriever = self.retriever.excluding(tasks, ids)
        return narrowed

    def identity(self) -> dict[str, Any]:
        """The identity of the other retriever, the share and the seed."""
        return super().identity() | {"of": self.retriever.identity(), "share": self.share, "seed": self.seed}

    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        num_random = round(self.share * num_retrieved)
        found = Ranking(*(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.float64)))
        if num_random < num_retrieved:
            found = self.retriever.rank(inputs, num_retrieved - num_random)
        drawn = self.rows.draw(num_random, self.seed, without=found.positions)
        return Ranking(
            np.concatenate([found.positions, drawn]),
            np.concatenate([found.queries, np.full(len(drawn), -1)]),
            np.concatenate([found.distances, np.full(len(drawn), np.nan)]),
        )
