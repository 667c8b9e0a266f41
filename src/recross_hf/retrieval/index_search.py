"""Searching a FAISS index: queries that can be compared, positions that exist, and distances that fall with relevance."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import faiss
import numpy as np

from .aggregation import Hits
from .encoder import Encoder
from .faiss_indexes import reason, selecting
from .vector_shards import IndexMismatchError

MOST_HITS = 1 << 20
"""Hits a query that may be asked for of a smaller index, which fills them up with -1."""


def nearest(index: faiss.Index, vectors: np.ndarray, k: int, *, encoder: Encoder, **search_kwargs: Any) -> Hits:
    """The `k` nearest vectors of each query.

    Args:
        index: FAISS index to search.
        vectors: Array `[n, d]` of the queries.
        k: Number of hits; where there are fewer vectors, -1 fills the places.
        encoder: Encoder of the queries, which an error names.
        search_kwargs: Arguments of the index's own `search`, such as `params`.

    Returns:
        [`Hits`] `[n, k]`; distances fall with relevance.

    Raises:
        IndexMismatchError: The index gives positions that it does not have.
        ValueError: The vectors are of another dimension, or not finite, or `k` is below 1 or far above what there is.
    """
    vectors = checked_queries(vectors, k, dimension=index.d, num_vectors=index.ntotal, encoder=encoder)
    distances, positions = index.search(vectors, int(k), **search_kwargs)
    if index.metric_type == faiss.METRIC_INNER_PRODUCT:
        distances = -distances
    # An IVF index holds a number with each vector, which a foreign file may choose.
    wrong = positions[(positions < -1) | (positions >= index.ntotal)]
    if len(wrong):
        raise IndexMismatchError(
            f"Expected positions of {index.ntotal} examples, found {wrong[0]} beside a vector: the FAISS index is damaged, or "
            "none of these examples. Download the index or build it again."
        )
    return Hits(positions, np.where(positions < 0, np.inf, distances))


def checked_queries(vectors: np.ndarray, k: int, *, dimension: int, num_vectors: int, encoder: Encoder) -> np.ndarray:
    """Queries as an index takes them.

    Args:
        vectors: Array `[n, d]` of the queries.
        k: Number of hits that is asked for.
        dimension: Dimension of the index.
        num_vectors: Number of its vectors.
        encoder: Encoder of the queries, which an error names.

    Returns:
        The vectors as contiguous float32.

    Raises:
        ValueError: They are of another dimension, or not finite, or `k` is below 1 or far above what there is.
    """
    try:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"Expected vectors [n, {dimension}], found {type(vectors).__name__} of something else. Encode texts first: "
            "`index.encoder.encode(texts)`."
        ) from error
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(
            f"Expected vectors [n, {dimension}], found {list(vectors.shape)}. Encode with the index's encoder."
        )
    if isinstance(k, bool | np.bool_) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"Expected to search for at least 1 example, found k={k!r}.")
    if k > max(num_vectors, MOST_HITS):
        raise ValueError(
            f"Expected k to be at most the {num_vectors:,} examples of the index, found {k:,}, for which there would be no memory. Lower "
            "it."
        )
    is_finite = np.isfinite(vectors).all(axis=1)
    if not is_finite.all():
        rows = np.flatnonzero(~is_finite)
        raise ValueError(
            f"Expected finite vectors, found NaN or infinity in {len(rows)} of {len(vectors)}, first in that of query "
            f"{rows[0]}: they have no neighbours. They come from the encoder {type(encoder).__name__}: encode in "
            "float32 or bfloat16, for float16 overflows in some models, and check its weights for NaN."
        )
    return vectors


def nearest_allowed(
    search: Callable[..., Hits], index: faiss.Index, vectors: np.ndarray, k: int, allowed: np.ndarray
) -> Hits:
    """The `k` nearest allowed vectors; an index that cannot pass over the others is searched deeper until all are found.

    Args:
        search: Searches the index, as [`UpstreamIndex.search`].
        index: FAISS index.
        vectors: Array `[n, d]` of the queries.
        k: Number of hits.
        allowed: Which positions may be hits, as an array of booleans.
    """
    wanted = min(k, int(allowed.sum()))
    depth = wanted
    selection = None
    if not allowed.all():
        selection = selecting(index, allowed)
    while True:
        hits = search(vectors, depth, params=selection)
        are_allowed = (hits.positions >= 0) & allowed[hits.positions]
        if selection or depth >= len(allowed) or are_allowed.sum(axis=1).min() >= wanted:
            break
        depth = min(4 * depth, len(allowed))
    # A stable sort brings the allowed hits to the front in their order.
    order = np.argsort(~are_allowed, axis=1, kind="stable")[:, :wanted]
    are_allowed = np.take_along_axis(are_allowed, order, axis=1)
    return Hits(
        np.where(are_allowed, np.take_along_axis(hits.positions, order, axis=1), -1),
        np.where(are_allowed, np.take_along_axis(hits.distances, order, axis=1), np.inf),
    )


def stored_vectors(index: faiss.Index, rows: np.ndarray) -> np.ndarray:
    """The vectors `[n, d]` of rows of an index, as it holds them: of small codes, approximately.

    Raises:
        ValueError: The index is of a kind that does not give them.
    """
    try:
        return np.asarray(index.reconstruct_batch(np.asarray(rows, dtype=np.int64)), dtype=np.float32)
    except RuntimeError as error:
        raise ValueError(
            f"Expected an index that gives its vectors, found {type(faiss.downcast_index(index)).__name__}: {reason(error)}. Build it with "
            "the factory string Flat, SQ8 or HNSW32."
        ) from error
