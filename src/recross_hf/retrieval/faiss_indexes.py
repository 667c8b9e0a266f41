"""FAISS indexes in memory: made by a factory string, trained, and searched to a depth or among some vectors alone."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import faiss
import numpy as np

HITS_PER_RESULT = 16
"""Hits that an index with `Refine` ranks again for each result; with more than `MANY_VECTORS` vectors it ranks twice as many."""
MANY_VECTORS = 4_000_000
_TRIED, _MOST_TRIED = 256, 4096
"""Vectors that an index is tried with before a build, and the most of them."""


def empty_index(
    dimension: int, factory: str, metric_type: int, nprobe: int | None = None, *, num_vectors: int = 0
) -> faiss.Index:
    """Makes the index that a factory string stands for, neither trained nor filled.

    Args:
        dimension: Length of a vector.
        factory: FAISS factory string.
        metric_type: `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
        nprobe: Lists that an IVF index visits in a search; a sixteenth of them by default.
        num_vectors: Number of vectors that the index will hold; it decides how many hits `Refine` ranks again.

    Raises:
        ValueError: FAISS takes no such string for this dimension, or `nprobe` has nothing to act on.
    """
    if not isinstance(factory, str):
        raise ValueError(f"Expected a factory string, found {factory!r}. Examples: Flat, SQ8, IVF1024,Flat, HNSW32.")
    if nprobe is not None and (not isinstance(nprobe, Integral) or nprobe < 1):
        raise ValueError(f"Expected `nprobe` to be at least 1, a whole number of lists, found {nprobe!r}.")
    try:
        index = faiss.index_factory(dimension, factory, metric_type)
    except RuntimeError as error:
        raise ValueError(
            f"FAISS takes no index {factory!r} for vectors of {dimension} dimensions: {reason(error)}. Examples of "
            "factory strings: Flat, SQ8, IVF1024,Flat, HNSW32."
        ) from error
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None:
        # FAISS visits one list by default, which finds a third of the neighbours; the choice is saved with the index.
        inverted.nprobe = int(nprobe or max(1, inverted.nlist // 16))
    elif nprobe is not None:
        raise ValueError(f"`nprobe` is for IVF indexes, found the factory string {factory!r}.")
    if isinstance(index, faiss.IndexRefine):
        # FAISS ranks one hit again for each result, which finds no more than no `Refine` does. The more vectors there are,
        # the more are as near by their small codes (benchmarks/index_scale.py).
        index.k_factor = HITS_PER_RESULT * (2 if num_vectors > MANY_VECTORS else 1)
    return index


def check_can_be_built(dimension: int, factory: str, metric_type: int, *, num_vectors: int, train_size: int) -> None:
    """Builds a small index of random vectors, so that what FAISS does not build is said before hours of encoding.

    Raises:
        ValueError: There are too few vectors to train the index on, or FAISS cannot train or fill it.
    """
    index, available = empty_index(dimension, factory, metric_type), min(num_vectors, train_size)
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is not None and inverted.nlist < 1:
        raise ValueError(f"Expected at least one list in the factory string, found {factory!r}.")
    needed = _least_to_train_on(index)
    if needed > available:
        raise ValueError(
            f"The index {factory!r} could not be trained on {available:,} vectors: it needs at least {needed:,}, of {num_vectors:,} "
            f"examples and `train_size={train_size}`. Choose fewer lists or bits, or a larger `train_size`."
        )
    # These take anything, and a trial with very many lists or codes would take long.
    if isinstance(index, faiss.IndexFlat | faiss.IndexScalarQuantizer) or needed > _MOST_TRIED:
        return
    vectors = np.random.default_rng(0).normal(size=(min(available, max(needed, _TRIED)), dimension))
    vectors = vectors.astype(np.float32)
    train(index, vectors, factory)
    try:
        index.add(vectors)
    except RuntimeError as error:
        raise ValueError(
            f"FAISS could not fill the index {factory!r} with {len(vectors)} vectors: {reason(error)}. Examples of factory strings: Flat, "
            "SQ8, IVF1024,Flat, HNSW32."
        ) from error


def _least_to_train_on(index: faiss.Index) -> int:
    """The number of vectors that k-means in an index cannot do with less of: one a list, and one a code of a quantiser."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return max(_least_to_train_on(index.base_index), _least_to_train_on(index.refine_index))
    if isinstance(index, faiss.IndexPreTransform):
        return _least_to_train_on(index.index)
    needed = int(index.pq.ksub) if hasattr(index, "pq") and not index.is_trained else 0
    if isinstance(index, faiss.IndexIVF):
        # A quantiser that trains alone, such as a multi-index, has codes of its own in place of lists.
        needed = max(needed, _least_to_train_on(index.quantizer) if index.quantizer_trains_alone == 1 else index.nlist)
    return needed


def train(index: faiss.Index, sample: np.ndarray, factory: str) -> None:
    """Trains an index, if it is of a kind that must be trained.

    Raises:
        ValueError: The sample is too small for the index.
    """
    try:
        index.train(sample)
    except RuntimeError as error:
        raise ValueError(
            f"The index {factory!r} could not be trained on {len(sample)} vectors: {reason(error)}. Choose fewer lists or "
            "bits, or a larger `train_size`."
        ) from error


def selecting(index: faiss.Index, allowed: np.ndarray) -> faiss.SearchParameters | None:
    """The parameters of a search that passes over all but the allowed vectors, and is otherwise as the index is set.

    `None` stands for kinds that would find fewer then, such as HNSW, whose walk ends among vectors that are passed over.
    """
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        base = selecting(index.base_index, allowed)
        return base and faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=base)
    if isinstance(index, faiss.IndexPreTransform):
        inner = selecting(index.index, allowed)
        return inner and faiss.SearchParametersPreTransform(index_params=inner)
    selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe, max_codes=index.max_codes)
    if isinstance(index, faiss.IndexFlat | faiss.IndexScalarQuantizer):
        return faiss.SearchParameters(sel=selector)
    return None


def search_depths(index: faiss.Index) -> list[float]:
    """How deep an index searches (`nprobe`, `efSearch`, `k_factor`), as its file says until somebody sets it."""
    return [getattr(part, name) for part, name in _depths(index)]


def set_search_depths(index: faiss.Index, depths: Sequence[float]) -> None:
    """Sets the depths that [`search_depths`] gave for an index of the same kind."""
    for (part, name), depth in zip(_depths(index), depths, strict=True):
        setattr(part, name, depth)


def _depths(index: faiss.Index) -> list[tuple[Any, str]]:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        return [(index, "k_factor"), *_depths(index.base_index)]
    if isinstance(index, faiss.IndexPreTransform):
        return _depths(index.index)
    if isinstance(index, faiss.IndexIVF):
        return [(index, "nprobe"), *_depths(index.quantizer)]
    if isinstance(index, faiss.IndexHNSW):
        return [(index.hnsw, "efSearch")]
    return []


def reason(error: Exception) -> str:
    """The reason that a message of FAISS gives, without the C++ source lines before it."""
    return str(error).rsplit("Error: ", 1)[-1].strip().rstrip(".")
