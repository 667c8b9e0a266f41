"""FAISS indexes from shards of vectors: made by a factory string, trained, filled and written without holding the vectors."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from tqdm.auto import tqdm

HEADER = struct.Struct("<4siqqq?i")
"""What every FAISS file begins with: kind, dimension, number of vectors, two fillers, whether it is trained, metric."""

HITS_PER_RESULT = 16
"""How many hits for each result an index with `Refine` ranks again; of more than `MANY_VECTORS` twice as many."""
MANY_VECTORS = 4_000_000


def empty_index(dimension: int, factory: str, metric_type: int, nprobe: int | None = None) -> faiss.Index:
    """The index that a factory string stands for, neither trained nor filled.

    Raises:
        ValueError: FAISS takes no such string for this dimension, or `nprobe` has nothing to act on.
    """
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
        inverted.nprobe = nprobe or max(1, inverted.nlist // 16)
    elif nprobe is not None:
        raise ValueError(f"`nprobe` is for IVF indexes, found the factory string {factory!r}.")
    if isinstance(index, faiss.IndexRefine):
        index.k_factor = HITS_PER_RESULT  # 1 by default, which finds no more than without it
    return index


def train(index: faiss.Index, sample: np.ndarray, factory: str) -> None:
    """Trains an index, if it is of a kind that must be.

    Raises:
        ValueError: the sample is too small for it.
    """
    try:
        index.train(sample)
    except RuntimeError as error:
        raise ValueError(
            f"The index {factory!r} could not be trained on {len(sample)} vectors: {reason(error)}. Choose fewer lists or "
            "bits, or a larger `train_size`."
        ) from error


def fill_and_write(index: faiss.Index, shards: Iterable[np.ndarray], num_vectors: int, path: Path) -> None:
    """Writes what `faiss.write_index` writes of a trained index once all shards are added to it.

    Where each vector is a code of its own, as in Flat, SQ8 and what `Refine` ranks by, the codes go from the shards to the
    file, and in memory is one shard. Other kinds order the vectors: they are held in memory, as the index stores them,
    until all are there. The index is empty afterwards, as it was; of `Refine`, `k_factor` is set to suit so many vectors.
    """
    with path.open("wb") as file:
        _fill_and_write(index, shards, num_vectors, file)


def _fill_and_write(index: faiss.Index, shards: Iterable[np.ndarray], num_vectors: int, file: BinaryIO) -> None:
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        # The more vectors there are, the more are as near by their small codes (benchmarks/index_scale.py).
        index.k_factor = HITS_PER_RESULT * (2 if num_vectors > MANY_VECTORS else 1)
        # Its head, the index that finds hits, the one that ranks them, and how many hits more than asked for are found.
        empty = faiss.serialize_index(index).tobytes()
        file.write(_counting(empty[: HEADER.size], num_vectors))
        for part in (index.base_index, index.refine_index):
            _fill_and_write(part, shards, num_vectors, file)
        file.write(empty[-4:])
        return
    progress = tqdm(shards, desc="Indexing", unit="shard")
    head = _head_before_codes(index, num_vectors)
    if head is None:
        for shard in progress:
            index.add(np.ascontiguousarray(shard))
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))
        index.reset()
        return
    file.write(head)
    for shard in progress:
        file.write(index.sa_encode(np.ascontiguousarray(shard)))


def _head_before_codes(index: faiss.Index, num_vectors: int) -> bytes | None:
    """What stands before the codes in the file of an index with so many vectors; `None` where codes do not stand last.

    Told by the file of one vector, in which their length, in a unit that differs with the kind, and the codes come last.
    """
    if not isinstance(index, faiss.IndexFlatCodes):
        return None
    vector = np.zeros((1, index.d), dtype=np.float32)
    index.add(vector)
    content = faiss.serialize_index(index).tobytes()
    index.reset()
    head, code = content[: -index.code_size], content[-index.code_size :]
    (length,) = struct.unpack("<Q", head[-8:])
    if code != index.sa_encode(vector).tobytes() or length not in (index.code_size, index.code_size // 4):
        return None
    return _counting(head[:-8], num_vectors) + struct.pack("<Q", length * num_vectors)


def _counting(head: bytes, num_vectors: int) -> bytes:
    kind, dimension, _, *others = HEADER.unpack_from(head)
    return HEADER.pack(kind, dimension, num_vectors, *others) + head[HEADER.size :]


def selecting(index: faiss.Index, allowed: np.ndarray) -> faiss.SearchParameters | None:
    """The parameters of a search that passes over all but the allowed vectors, else as the index is set.

    `None` for kinds that would find fewer then, such as HNSW, whose walk ends among what is passed over.
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
    """Sets what [`search_depths`] gave of an index of the same kind."""
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
    """What went wrong, of a message of FAISS."""
    return str(error).rsplit("Error: ", 1)[-1].strip().rstrip(".")
