"""Rows of upstream data: those that may be retrieved, and those that were."""

from __future__ import annotations

from collections.abc import Collection
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from ..data.schema import column_hash, ids_hash
from .aggregation import Ranking

_HASHES: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()


def gather_rows(upstream: Dataset, ranking: Ranking) -> Dataset:
    """The ranked rows as a `Dataset` in memory, with `rank`, `query` and `distance`."""
    columns = upstream.select(ranking.positions).to_dict() | {
        "rank": range(len(ranking.positions)),
        "query": np.asarray(ranking.queries, dtype=np.int64),
        "distance": np.asarray(ranking.distances, dtype=np.float64),
    }
    provenance = {"rank": Value("int64"), "query": Value("int64"), "distance": Value("float64")}
    return Dataset.from_dict(columns, features=Features({**upstream.features, **provenance}))


def content_hash(upstream: Dataset) -> str:
    """A hash of ids and inputs, which is kept as long as the data set, because many retrievers share their examples."""
    if upstream not in _HASHES:
        _HASHES[upstream] = f"{ids_hash(upstream)}-{column_hash(upstream, 'input')}"
    return _HASHES[upstream]


def allowed_rows(upstream: Dataset, excluded_tasks: Collection[str], excluded_ids: Collection[str]) -> np.ndarray:
    """The rows that are not excluded, as an array of booleans.

    Raises:
        ValueError: An excluded task is none of `upstream`.
    """
    known = set(pc.unique(column(upstream, "task")).to_pylist()) if excluded_tasks else set()
    unknown = sorted(set(excluded_tasks) - known)
    if unknown:
        raise ValueError(
            f"Expected to exclude upstream tasks, found {', '.join(unknown)}, which are none. Upstream tasks: "
            f"{', '.join(sorted(known))}."
        )
    return ~excluded_rows(upstream, excluded_tasks, excluded_ids)


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
