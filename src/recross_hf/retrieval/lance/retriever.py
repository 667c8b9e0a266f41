"""`LanceRetriever`: the nearest neighbours of inputs in a Lance data set, with exclusions that the search itself applies."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from typing import Any, Self

import numpy as np
from datasets import Dataset

from ...core.hashing import function_name
from ..aggregation import Aggregation, Hits, interleave
from ..index import UpstreamIndex
from ..retriever import DenseRetriever, NeighbourRetriever
from ..upstream_rows import RowsInMemory, UpstreamRows
from .index import LanceIndex
from .search import leaving_out

_POSITIONS_AT_ONCE = 1 << 20


class LanceRows(UpstreamRows):
    """Examples of a [`LanceIndex`], which stay where they are.

    Args:
        index: The index.
        without: Texts that are left out, by column: `task` and `id`.
    """

    def __init__(self, index: LanceIndex, without: dict[str, frozenset[str]] | None = None) -> None:
        self.index, self.without = index, without or {"task": frozenset(), "id": frozenset()}
        self.num_allowed = len(index) if self.where is None else index.count(self.where)

    @property
    def where(self) -> str | None:
        """SQL condition for the rows that may be retrieved; `None` where all of them may."""
        return " AND ".join(leaving_out(column, texts) for column, texts in self.without.items() if texts) or None

    def __len__(self) -> int:
        return len(self.index)

    @property
    def source(self) -> LanceIndex:
        return self.index

    @property
    def all_tasks(self) -> set[str]:
        return self.index.tasks()

    @property
    def tasks(self) -> set[str]:
        return self.index.tasks(self.where)

    def excluding(self, tasks: Collection[str], ids: Collection[str]) -> Self:
        if not tasks and not ids:
            return self
        return type(self)(self.index, {"task": self.without["task"] | {*tasks}, "id": self.without["id"] | {*ids}})

    def are_allowed(self, positions: np.ndarray) -> bool:
        columns = [name for name, texts in self.without.items() if texts]
        if not columns:
            return True
        found = self.index.rows(positions, columns)
        return all(self.without[name].isdisjoint(found[name][:]) for name in columns)

    def select(self, positions: np.ndarray) -> Dataset:
        return self.index.rows(positions)

    def batches(self, columns: Sequence[str], size: int) -> Iterator[dict[str, list[Any]]]:
        return self.index.batches(columns, size)

    def allowed_positions(self) -> Iterator[np.ndarray]:
        if self.where is not None:
            yield from self.index.positions(self.where)
            return
        for start in range(0, len(self), _POSITIONS_AT_ONCE):
            yield np.arange(start, min(start + _POSITIONS_AT_ONCE, len(self)))

    def identity(self) -> dict[str, Any]:
        without = json.dumps({name: sorted(texts) for name, texts in self.without.items()})
        return {"upstream": self.index.content_hash, "allowed": sha256(without.encode()).hexdigest()}


class LanceRetriever(NeighbourRetriever):
    """Nearest neighbours of the inputs in a [`LanceIndex`], as [`DenseRetriever`] finds them in an [`UpstreamIndex`].

    ```python
    retriever = LanceRetriever(LanceIndex.from_pretrained("s3://bucket/index.lance", encoder=encoder), exclude_tasks=["glue-mrpc"])
    retriever.retrieve(inputs, num_retrieved=512).to_pandas().groupby("task").size()
    ```

    Neither examples nor vectors are in memory: excluded tasks and ids are a condition of each search.

    Args:
        index: Index to search; its encoder encodes the inputs.
        aggregation: Function that makes one ranking of the hits of several inputs, such as `aggregation.interleave`.
        exclude_tasks: Tasks never to retrieve from.
        exclude_ids: Examples never to retrieve.
    """

    index: LanceIndex
    rows: LanceRows

    def __init__(
        self,
        index: LanceIndex,
        *,
        aggregation: Aggregation = interleave,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        super().__init__(LanceRows(index), exclude_tasks=exclude_tasks, exclude_ids=exclude_ids)
        self.index = index
        self.aggregation = aggregation

    def identity(self) -> dict[str, Any]:
        """The identity of the base class, the index and the aggregation."""
        config = {name: self.index.config[name] for name in ("encoder", "index", "metric")}
        depth = None if self.index.depth is None else vars(self.index.depth)
        return super().identity() | {
            "index": config | {"search": depth},
            "aggregation": function_name(self.aggregation),
        }

    def search(self, vectors: np.ndarray, k: int) -> Hits:
        """The `k` nearest allowed examples."""
        return self.index.search(vectors, min(k, self.num_allowed), where=self.rows.where)


def rows_of(index: UpstreamIndex | LanceIndex) -> UpstreamRows:
    """The examples of an index of either kind, all of which may be retrieved.

    Args:
        index: The index.
    """
    return LanceRows(index) if isinstance(index, LanceIndex) else RowsInMemory(index.dataset)


def dense_retriever(index: UpstreamIndex | LanceIndex, **arguments: Any) -> NeighbourRetriever:
    """The retriever of nearest neighbours in an index of either kind.

    Args:
        index: The index.
        arguments: `aggregation`, `exclude_tasks` and `exclude_ids`.
    """
    return LanceRetriever(index, **arguments) if isinstance(index, LanceIndex) else DenseRetriever(index, **arguments)
