"""Searching a FAISS index: queries that can be compared, positions that exist, and distances that fall with relevance."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import faiss
import numpy as np

from .aggregation import Hits
from .encoder import Encoder
from .faiss_indexes import reason
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
    try:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    except ValueError as error:
        raise ValueError(
            f"Expected vectors [n, {index.d}], found {type(vectors).__name__} of something else. Encode texts first: "
            "`index.encoder.encode(texts)`."
        ) from error
    if vectors.ndim != 2 or vectors.shape[1] != index.d:
        raise ValueError(
            f"Expected vectors [n, {index.d}], found {list(vectors.shape)}. Encode with the index's encoder."
        )
    if isinstance(k, bool | np.bool_) or not isinstance(k, Integral) or k < 1:
        raise ValueError(f"Expected to search for at least 1 example, found k={k!r}.")
    if k > max(index.ntotal, MOST_HITS):
        raise ValueError(
            f"Expected k to be at most the {index.ntotal:,} examples of the index, found {k:,}, for which there would be no memory. Lower "
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
