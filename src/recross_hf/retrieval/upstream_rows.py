"""Rows of upstream data: where they are, those that may be retrieved, and those that were."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from hashlib import sha256
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from ..data.schema import column_hash, ids_hash
from .aggregation import Ranking

_HASHES: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()


class UpstreamRows(ABC):
    """Where the examples of a retriever are, and which of them may be retrieved. Positions are those of all examples."""

    num_allowed: int
    """Number of examples that may be retrieved."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of all examples, excluded ones too."""

    @property
    @abstractmethod
    def source(self) -> object:
        """What has the examples: those of one source are the same, whichever of them may be retrieved."""

    @property
    @abstractmethod
    def all_tasks(self) -> set[str]:
        """The tasks of all examples, excluded ones too."""

    @property
    @abstractmethod
    def tasks(self) -> set[str]:
        """The tasks that may be retrieved from."""

    @abstractmethod
    def excluding(self, tasks: Collection[str], ids: Collection[str]) -> Self:
        """The same examples, fewer of which may be retrieved; those that are not upstream have nothing to exclude."""

    @abstractmethod
    def are_allowed(self, positions: np.ndarray) -> bool:
        """Whether all examples at these positions may be retrieved."""

    @abstractmethod
    def select(self, positions: np.ndarray) -> Dataset:
        """The examples at these positions, in their order."""

    @abstractmethod
    def batches(self, columns: Sequence[str], size: int) -> Iterator[dict[str, list[Any]]]:
        """Columns of all examples in their order, excluded ones too, at most so many examples at a time."""

    @abstractmethod
    def allowed_positions(self) -> Iterator[np.ndarray]:
        """The positions of the examples that may be retrieved, in their order, some at a time."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Which examples they are, and which of them may be retrieved, as JSON values."""

    def draw(self, number: int, seed: int, without: Sequence[int] | np.ndarray = ()) -> np.ndarray:
        """Positions of random examples among those that may be retrieved, without replacement.

        Args:
            number: Number of examples; fewer where there are no more.
            seed: Seed for drawing.
            without: Positions that are not drawn, of examples that may be retrieved.
        """
        kept_out = np.unique(np.asarray(without, dtype=np.int64))
        left = self.num_allowed - len(kept_out)
        places = np.random.default_rng(seed).choice(left, min(number, left), replace=False)
        drawn, start = np.empty(len(places), dtype=np.int64), 0
        for positions in self.allowed_positions():
            positions = positions[~np.isin(positions, kept_out)]
            are_here = (places >= start) & (places < start + len(positions))
            drawn[are_here] = positions[places[are_here] - start]
            start += len(positions)
        return drawn

    def in_memory(self) -> RowsInMemory:
        """The same rows as a `Dataset`.

        Raises:
            TypeError: They are elsewhere, and not read as a whole.
        """
        raise TypeError(
            f"Expected upstream examples as a `Dataset`, found {len(self):,} in {type(self).__name__}, which are not read as a whole. What "
            "was asked for looks at all of them: build an `UpstreamIndex` of fewer examples for it."
        )


class RowsInMemory(UpstreamRows):
    """Examples of a `Dataset`.

    Args:
        dataset: The examples.
        allowed: Which rows may be retrieved, as an array of booleans; all of them by default.
    """

    def __init__(self, dataset: Dataset, allowed: np.ndarray | None = None) -> None:
        self.dataset = dataset
        self.allowed = np.ones(len(dataset), dtype=bool) if allowed is None else allowed
        self.num_allowed = int(self.allowed.sum())

    def in_memory(self) -> RowsInMemory:
        return self

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def source(self) -> Dataset:
        return self.dataset

    @property
    def all_tasks(self) -> set[str]:
        return set(pc.unique(column(self.dataset, "task")).to_pylist())

    @property
    def tasks(self) -> set[str]:
        return set(pc.unique(column(self.dataset, "task").filter(pa.array(self.allowed))).to_pylist())

    def excluding(self, tasks: Collection[str], ids: Collection[str]) -> Self:
        return type(self)(self.dataset, self.allowed & ~excluded_rows(self.dataset, tasks, ids))

    def are_allowed(self, positions: np.ndarray) -> bool:
        return bool(self.allowed[positions].all())

    def select(self, positions: np.ndarray) -> Dataset:
        return self.dataset.select(positions)

    def batches(self, columns: Sequence[str], size: int) -> Iterator[dict[str, list[Any]]]:
        yield from self.dataset.select_columns([*columns]).iter(size)

    def allowed_positions(self) -> Iterator[np.ndarray]:
        yield np.flatnonzero(self.allowed)

    def identity(self) -> dict[str, Any]:
        allowed = sha256(np.packbits(self.allowed).tobytes()).hexdigest()
        return {"upstream": content_hash(self.dataset), "allowed": allowed}


def gather_rows(upstream: UpstreamRows, ranking: Ranking) -> Dataset:
    """The ranked rows as a `Dataset` in memory, with `rank`, `query` and `distance`."""
    found = upstream.select(ranking.positions)
    columns = found.to_dict() | {
        "rank": range(len(ranking.positions)),
        "query": np.asarray(ranking.queries, dtype=np.int64),
        "distance": np.asarray(ranking.distances, dtype=np.float64),
    }
    provenance = {"rank": Value("int64"), "query": Value("int64"), "distance": Value("float64")}
    return Dataset.from_dict(columns, features=Features({**found.features, **provenance}))


def content_hash(upstream: Dataset) -> str:
    """A hash of ids and inputs, which is kept as long as the data set, because many retrievers share their examples."""
    if upstream not in _HASHES:
        _HASHES[upstream] = f"{ids_hash(upstream)}-{column_hash(upstream, 'input')}"
    return _HASHES[upstream]


def check_known(excluded: Collection[str], known: Collection[str]) -> None:
    """Refuses to exclude tasks that are none, as a misspelled one.

    Raises:
        ValueError: An excluded task is none of those that are known.
    """
    unknown = sorted(set(excluded) - set(known))
    if unknown:
        raise ValueError(
            f"Expected to exclude upstream tasks, found {', '.join(unknown)}, which are none. Upstream tasks: "
            f"{', '.join(sorted(known))}."
        )


def excluded_rows(upstream: Dataset, tasks: Collection[str], ids: Collection[str]) -> np.ndarray:
    """The rows of these tasks and ids, as an array of booleans."""
    excluded = np.zeros(len(upstream), dtype=bool)
    for name, values in (("task", tasks), ("id", ids)):
        if values:
            texts = column(upstream, name)
            excluded |= pc.is_in(texts, value_set=pa.array(sorted(set(values)), type=texts.type)).to_numpy()
    return excluded


def column(upstream: Dataset, name: str) -> pa.ChunkedArray:
    """A column as Arrow, without a Python object a row."""
    return upstream.select_columns(name).with_format("arrow")[:][name]
