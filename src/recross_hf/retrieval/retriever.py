"""Retrievers: for the inputs of an unseen task, the upstream examples to learn from.

To add one, subclass [`Retriever`] and write `rank`.
"""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from datasets import Dataset

from ..core.hashing import function_name
from .aggregation import Aggregation, Hits, Ranking, interleave
from .index import UpstreamIndex
from .index_search import nearest_allowed
from .upstream_rows import RowsInMemory, UpstreamRows, check_known, gather_rows

logger = logging.getLogger(__name__)


class Retriever(ABC):
    """Retrieves upstream examples for query inputs.

    The base class checks the arguments, keeps excluded examples out and gives the retrieved rows with their provenance;
    a subclass writes [`Retriever.rank`].

    Args:
        upstream: Examples to retrieve from: a data set, or [`UpstreamRows`] that are elsewhere.
        exclude_tasks: Tasks never to retrieve from, e.g. the target's own where it is upstream, too.
        exclude_ids: Examples never to retrieve.

    Attributes:
        rows: Where the examples are, and which of them may be retrieved.
        uses_inputs: Whether the inputs decide which examples are retrieved. Where they do not, there is nothing to choose among:
            the examples are a baseline, and learned from as they were drawn.
        is_dense: Whether the hits are neighbours in an [`UpstreamIndex`]. A pipeline's own reranker was trained on such hits, and
            by default reranks no others.

    Raises:
        ValueError: An excluded task is none of `upstream`, or nothing is left.
    """

    uses_inputs: bool = True
    is_dense: ClassVar[bool] = False

    def __init__(
        self,
        upstream: Dataset | UpstreamRows,
        *,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        for name, excluded in (("exclude_tasks", exclude_tasks), ("exclude_ids", exclude_ids)):
            if isinstance(excluded, str):
                raise TypeError(f"Expected `{name}` to be a collection of strings, found one string. Pass a list.")
        rows = upstream if isinstance(upstream, UpstreamRows) else RowsInMemory(upstream)
        if exclude_tasks:
            check_known(exclude_tasks, rows.all_tasks)
        self.rows = rows.excluding(exclude_tasks, exclude_ids)
        if not self.num_allowed:
            raise ValueError(f"Nothing is left to retrieve: all {len(rows)} upstream examples are excluded.")

    @property
    def upstream(self) -> Dataset:
        """The examples, excluded ones too; a `TypeError` where they are no `Dataset` ([`UpstreamRows.in_memory`])."""
        return self.rows.in_memory().dataset

    @property
    def allowed(self) -> np.ndarray:
        """Which rows of `upstream` may be retrieved, as an array of booleans; a `TypeError` where they are no `Dataset`."""
        return self.rows.in_memory().allowed

    @property
    def num_allowed(self) -> int:
        """Number of examples that may be retrieved."""
        return self.rows.num_allowed

    @property
    def tasks(self) -> set[str]:
        """The tasks that may be retrieved from."""
        return self.rows.tasks

    def excluding(self, tasks: Collection[str] = (), ids: Collection[str] = ()) -> Self:
        """The same retriever with more tasks and examples excluded; those that are not upstream have nothing to exclude.

        Args:
            tasks: Tasks to exclude.
            ids: Examples to exclude.

        Raises:
            ValueError: Nothing is left.
        """
        narrowed = copy.copy(self)
        narrowed.rows = self.rows.excluding(tasks, ids)
        if not narrowed.num_allowed:
            without = [*sorted(tasks), *([f"{len(ids)} examples"] if ids else [])]
            raise ValueError(f"Nothing is left to retrieve without {', '.join(without)}.")
        return narrowed

    def identity(self) -> dict[str, Any]:
        """All that the retrieved examples depend on beside the inputs, as JSON values; a subclass adds settings of its own."""
        return {"class": type(self).__name__, **self.rows.identity()}

    @abstractmethod
    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        """Ranks upstream examples for the inputs of an unseen task.

        Under `accelerate launch` the main process alone calls it: nothing in it may wait for the other processes.

        Args:
            inputs: Query inputs, at least one.
            num_retrieved: Number of examples to return; fewer where there are no more.

        Returns:
            A [`Ranking`] with positions in `self.upstream` for which `self.allowed` is true ([`UpstreamRows.are_allowed`]).
        """

    def nearest(self, inputs: Sequence[str], k: int) -> Hits:
        """Each input's own `k` examples, as [`rank`] gives them for that input alone: what an input is shown, and not a task.

        Args:
            inputs: Inputs, each of which is a query of its own.
            k: Number of examples for each.

        Returns:
            [`Hits`] `[len(inputs), k]`, first is first; -1 where an input has fewer.
        """
        positions, distances = np.full((len(inputs), k), -1), np.full((len(inputs), k), np.inf)
        for row, text in enumerate(inputs):
            ranking = self.rank([text], k)
            positions[row, : len(ranking.positions)] = ranking.positions
            distances[row, : len(ranking.positions)] = ranking.distances
        return Hits(positions, distances)

    def retrieve(self, inputs: Sequence[str], num_retrieved: int) -> Dataset:
        """Retrieves examples to learn from.

        Args:
            inputs: Query inputs.
            num_retrieved: Number of examples, |R|; duplicates count.

        Raises:
            ValueError: There is no input or none has a hit; in dense retrieval, a vector is not finite.

        Returns:
            The upstream examples with the columns `rank` (0 is first), `query` (position of the input that brought it;
            -1: all together) and `distance` (falls with relevance; NaN where there is none).
        """
        if isinstance(inputs, str):
            raise TypeError("Expected a list of inputs, found one string. Pass `[text]`.")
        if not len(inputs):
            raise ValueError("Expected at least one query input, found none.")
        if num_retrieved < 1:
            raise ValueError(f"Expected to retrieve at least one example, found num_retrieved={num_retrieved}.")
        ranking = self.rank(inputs, num_retrieved)
        if (ranking.positions < 0).any() or not self.rows.are_allowed(ranking.positions):
            raise RuntimeError(f"{type(self).__name__}.rank returned examples that are excluded, or none (below 0).")
        without = [] if (ranking.queries < 0).any() else sorted({*range(len(inputs))} - {*ranking.queries.tolist()})
        if not len(ranking.positions):
            raise ValueError(
                f"Expected a hit of at least one query input, found none of {len(inputs)} among the {self.num_allowed} upstream "
                f"examples that {type(self).__name__} may retrieve ({_shown(inputs, without)}). There is nothing to learn "
                "from: check the inputs, or take another retriever."
            )
        if len(ranking.positions) < num_retrieved:
            logger.warning(
                "Expected to retrieve %d examples, found %d among the %d upstream examples that may be retrieved.%s",
                num_retrieved,
                len(ranking.positions),
                self.num_allowed,
                f" No example was found for {_shown(inputs, without)}." if without else "",
            )
        return gather_rows(self.rows, ranking)


class NeighbourRetriever(Retriever):
    """Nearest neighbours of the inputs by the vectors of an index; a subclass writes `search`.

    Attributes:
        index: Index that is searched, whose `encoder` encodes the inputs.
        aggregation: Function that makes one ranking of the hits of several inputs.
    """

    is_dense = True
    index: Any
    aggregation: Aggregation

    @abstractmethod
    def search(self, vectors: np.ndarray, k: int) -> Hits:
        """The `k` nearest allowed examples of each vector `[n, d]`."""

    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        vectors = self.encode(inputs)
        return self.aggregation(lambda k: self.search(vectors, k), len(inputs), num_retrieved)

    def nearest(self, inputs: Sequence[str], k: int) -> Hits:
        """Each input's `k` nearest examples; all inputs are searched at once."""
        return self.search(self.encode(inputs), k).filled_up(k)

    def encode(self, inputs: Sequence[str]) -> np.ndarray:
        """The vectors of query inputs `[n, d]`.

        Raises:
            ValueError: One is not finite.
        """
        vectors = np.asarray(self.index.encoder.encode(list(inputs)), dtype=np.float32)
        unusable = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        if unusable:
            raise ValueError(
                f"Expected a finite vector of each query input, found NaN or infinity from {type(self.index.encoder).__name__} "
                f"for {len(unusable)} of {len(inputs)} ({_shown(inputs, unusable)}). Encode in float32 or bfloat16, for "
                "float16 overflows in some models, and check the encoder's weights for NaN."
            )
        return vectors


class DenseRetriever(NeighbourRetriever):
    """Nearest neighbours of the inputs in an [`UpstreamIndex`] (paper, section 3.2: "ReCross-dagger").

    ```python
    retriever = DenseRetriever(UpstreamIndex.from_pretrained("index", encoder=encoder), exclude_tasks=["glue-mrpc"])
    retriever.retrieve(inputs, num_retrieved=512).to_pandas().groupby("task").size()
    ```

    Args:
        index: Index to search; its encoder encodes the inputs.
        aggregation: Function that makes one ranking of the hits of several inputs, such as `aggregation.interleave`.
        exclude_tasks: Tasks never to retrieve from.
        exclude_ids: Examples never to retrieve.
    """

    index: UpstreamIndex

    def __init__(
        self,
        index: UpstreamIndex,
        *,
        aggregation: Aggregation = interleave,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        super().__init__(index.dataset, exclude_tasks=exclude_tasks, exclude_ids=exclude_ids)
        self.index = index
        self.aggregation = aggregation

    def identity(self) -> dict[str, Any]:
        """The identity of the base class, the index and the aggregation."""
        config = {name: self.index.config.get(name) for name in ("encoder", "factory", "metric")}
        return super().identity() | {"index": config, "aggregation": function_name(self.aggregation)}

    def search(self, vectors: np.ndarray, k: int) -> Hits:
        """The `k` nearest allowed examples; an index that cannot pass over the others is searched deeper until all are found."""
        return nearest_allowed(self.index.search, self.index.faiss_index, vectors, k, self.allowed)


class RandomRetriever(Retriever):
    """Examples drawn at random, whatever the inputs: the baseline that retrieval must beat (paper, section 4).

    They are drawn without replacement. The same seed gives the same examples.

    Args:
        upstream: Examples to draw from: a data set, or [`UpstreamRows`] that are elsewhere.
        seed: Seed for drawing.
        exclude_tasks: Tasks never to draw from.
        exclude_ids: Examples never to draw.
    """

    uses_inputs = False

    def __init__(
        self,
        upstream: Dataset | UpstreamRows,
        *,
        seed: int = 0,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        super().__init__(upstream, exclude_tasks=exclude_tasks, exclude_ids=exclude_ids)
        self.seed = seed

    def identity(self) -> dict[str, Any]:
        """The identity of the base class, and the seed."""
        return super().identity() | {"seed": self.seed}

    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        drawn = self.rows.draw(num_retrieved, self.seed)
        return Ranking(drawn, np.full(len(drawn), -1), np.full(len(drawn), np.nan))


def _shown(inputs: Sequence[str], rows: Sequence[int]) -> str:
    names = ", ".join(f"{row}: {inputs[row][:60]!r}" for row in rows[:5])
    return f"query {names}{', ...' * (len(rows) > 5)}"
