"""Searching a version of a Lance data set: rows by their positions, and the nearest of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa

from ..aggregation import Hits
from .layout import VECTOR, float32_array
from .vector_index import METRICS, Metric, SearchDepth

_QUERIES_AT_ONCE = 64


class RowAddresses:
    """Positions of rows among all of a version, and their addresses in Lance: a fragment's number and a row of it.

    Args:
        dataset: The version, as Lance opens it.
    """

    def __init__(self, dataset: Any) -> None:
        fragments = dataset.get_fragments()
        self._numbers = np.array([fragment.fragment_id for fragment in fragments], dtype=np.int64)
        self._starts = np.cumsum([0, *(fragment.metadata.num_rows for fragment in fragments)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def positions(self, addresses: np.ndarray) -> np.ndarray:
        """The positions of addresses."""
        addresses = addresses.astype(np.int64)
        order = np.argsort(self._numbers)
        fragments = order[np.searchsorted(self._numbers, addresses >> 32, sorter=order)]
        return self._starts[fragments] + (addresses & 0xFFFFFFFF)


def nearest_rows(
    dataset: Any,
    addresses: RowAddresses,
    vectors: np.ndarray,
    k: int,
    *,
    metric: Metric,
    depth: SearchDepth | None,
    where: str | None = None,
) -> Hits:
    """The `k` nearest rows of each vector.

    Args:
        dataset: The version, as Lance opens it.
        addresses: Where its rows are.
        vectors: Array `[n, d]`.
        k: Number of rows.
        metric: Metric of the index.
        depth: How deep the index is searched; `None` compares all vectors, exactly.
        where: SQL condition for the rows that may be hits ([`leaving_out`]).

    Returns:
        [`Hits`] `[n, k]`; -1 where there are fewer. Distances fall with relevance.
    """
    positions, distances = np.full((len(vectors), k), -1), np.full((len(vectors), k), np.inf)
    search: dict[str, Any] = {"column": VECTOR, "k": k, "metric": METRICS[metric], "use_index": depth is not None}
    if depth is not None:
        # A minimum, not a fixed number: where a condition leaves few rows, Lance visits more partitions until it has `k`.
        search |= {"minimum_nprobes": depth.nprobes, "refine_factor": depth.refine_factor}
    for start in range(0, len(vectors), _QUERIES_AT_ONCE):
        found = dataset.scanner(
            columns=["_distance"],
            nearest=search | {"q": vectors[start : start + _QUERIES_AT_ONCE]},
            filter=where,
            prefilter=True,
            with_row_id=True,
        ).to_table()
        queries = found["query_index"].to_numpy() + start
        scores = found["_distance"].to_numpy().astype(np.float64)
        if metric == "inner_product":
            scores -= 1.0  # Lance gives 1 - the product
        # Equal distances are put in the order of their rows, whichever way the search came to them.
        rows = addresses.positions(found["_rowid"].to_numpy())
        order = np.lexsort((rows, scores, queries))
        queries, scores, rows = queries[order], scores[order], rows[order]
        places = np.arange(len(queries)) - np.searchsorted(queries, queries)
        positions[queries, places], distances[queries, places] = rows, scores
    return Hits(positions, distances)


def read_rows(dataset: Any, positions: np.ndarray, columns: list[str]) -> pa.Table:
    """The rows at these positions in their order; some may repeat."""
    distinct, places = np.unique(np.asarray(positions, dtype=np.int64), return_inverse=True)
    if not len(distinct):
        return dataset.schema.empty_table().select(columns)
    return dataset.take(distinct.tolist(), columns=columns).take(pa.array(places))


def read_vectors(dataset: Any, positions: np.ndarray) -> np.ndarray:
    """The stored vectors `[n, d]` of the rows at these positions as float32, in their order; some may repeat."""
    return float32_array(read_rows(dataset, positions, [VECTOR])[VECTOR].combine_chunks())


def leaving_out(column: str, values: Collection[str]) -> str:
    """A SQL condition for rows that have none of these texts in a column; texts are quoted.

    Args:
        column: Name of a column of the data set.
        values: Texts to leave out, at least one.
    """
    return f"{column} NOT IN ({', '.join(quoted(value) for value in sorted(set(values)))})"


def quoted(text: str) -> str:
    """A text as SQL has it: between single quotes, with each of its own doubled. There are no other escapes."""
    return "'" + text.replace("'", "''") + "'"
