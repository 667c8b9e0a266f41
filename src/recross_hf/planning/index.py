"""The plan of building an index."""

from __future__ import annotations

import math
import re
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
from datasets import Dataset
from numpy.typing import DTypeLike
from transformers import PreTrainedModel

from ..core.distributed import process_state
from ..core.files import write_parquet
from ..data.conversations import texts_of
from ..models.exact_weights import stored_bytes
from ..retrieval.encoder import Encoder
from ..retrieval.faiss_indexes import empty_index
from .plan import Plan, TimeEstimate
from .probe import LESS_DISK, PROBE_EXAMPLES, PROBE_SECONDS
from .resources import peak_memory

_MANY_LISTS = 256
_ADDED = 2048
_TURNS = 4


def index_bytes(dimension: int, num_vectors: int, factory: str = "Flat") -> int:
    """Bytes of a FAISS index on disk; in memory it takes as many at most.

    Args:
        dimension: Dimension of the vectors.
        num_vectors: Number of vectors.
        factory: FAISS factory string of the index.

    Returns:
        The number of bytes.

    Raises:
        ValueError: FAISS takes no such factory string.
    """
    whole = empty_index(dimension, factory, faiss.METRIC_L2)  # it owns the indexes inside
    return sum(_bytes_of(whole, num_vectors))


def _bytes_of(index: faiss.Index, num_vectors: int) -> tuple[int, int]:
    """Bytes that are held in memory while an index is filled, and bytes that go from the shards straight to the file."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexRefine):
        (held, written), (held_besides, written_besides) = (
            _bytes_of(inner, num_vectors) for inner in (index.base_index, index.refine_index)
        )
        return held + held_besides, written + written_besides
    if isinstance(index, faiss.IndexPreTransform):
        held, written = _bytes_of(index.index, num_vectors)
        return held + written, 0
    if isinstance(index, faiss.IndexHNSW):
        # Neighbours of four bytes, twice as many in the lowest layer, and where each vector's begin.
        neighbours = index.hnsw.nb_neighbors(0)
        return num_vectors * (index.storage.sa_code_size() + 4 * neighbours + 16), 0
    inverted = faiss.try_extract_index_ivf(index)
    if inverted is None:
        centroids = 256 * 4 * index.d if isinstance(index, faiss.IndexPQ) else 0
        codes = num_vectors * index.sa_code_size()
        is_written = isinstance(index, faiss.IndexFlat | faiss.IndexScalarQuantizer)
        return (0, codes) if is_written else (codes + centroids, 0)
    centroids = 256 * 4 * index.d if isinstance(faiss.downcast_index(inverted), faiss.IndexIVFPQ) else 0
    # The number of its list stands beside a code only where codes stand alone.
    coarse = (inverted.nlist - 1).bit_length() + 7 >> 3
    return num_vectors * (index.sa_code_size() - coarse + 8) + 4 * index.d * inverted.nlist + centroids, 0


def _assembling_seconds(
    vectors: np.ndarray, num_vectors: int, factory: str, metric_type: int, train_size: int
) -> float:
    """Seconds to train and fill an index of `num_vectors`, extrapolated from some, which may repeat: their values matter little."""
    num_lists = int(lists[1]) if (lists := re.search(r"IVF(\d+)", factory)) else 0
    tried = min(num_lists, _MANY_LISTS)  # with more lists, both training and filling take longer in proportion
    index = faiss.index_factory(vectors.shape[1], re.sub(r"IVF\d+", f"IVF{tried}", factory), metric_type)
    # FAISS prints warnings of fewer than 39 vectors a centroid, of which a code of 8 bits has 256.
    vectors = np.resize(vectors, (max(len(vectors), 39 * max(tried, 256) * (not index.is_trained)), vectors.shape[1]))
    start = time.perf_counter()
    index.train(vectors)
    trained = time.perf_counter()
    index.add(vectors[:_ADDED])
    added = time.perf_counter()
    # It takes at most 256 vectors a centroid, drawn from those that it gets.
    training = min(train_size, num_vectors, 256 * max(num_lists, 256)) / len(vectors) * (trained - start)
    filling = num_vectors / min(_ADDED, len(vectors)) * (added - trained)
    return (training + filling) * max(num_lists / max(tried, 1), 1)


def try_encoding(encoder: Encoder, texts: list[str], shard_size: int) -> tuple[np.ndarray, list[float]]:
    """Encodes some texts: their vectors, and seconds a text in several turns."""
    # The longest come first: they decide how much memory is needed, and work that happens only once is not timed.
    longest = sorted(texts, key=len)[-64:]
    vectors = [np.asarray(encoder.encode(longest[-2:]), dtype=np.float32)]
    start = time.perf_counter()
    vectors.append(np.asarray(encoder.encode(longest), dtype=np.float32))
    slowest = (time.perf_counter() - start) / len(longest)
    # An encoder sorts a shard by length, so that its batches are of like lengths: so are those that are tried out, by turns from all of
    # the shard.
    shard, tried = sorted(texts[:shard_size], key=len), []
    num_texts = int(np.clip(PROBE_SECONDS / _TURNS**2 / slowest, min(16, len(shard)), max(len(shard) // _TURNS**2, 1)))
    for turn in range(_TURNS):
        seconds = []
        for place in (np.arange(_TURNS) + (turn + 0.5) / _TURNS) / _TURNS:
            first = round(place * (len(shard) - num_texts))
            start = time.perf_counter()
            vectors.append(np.asarray(encoder.encode(shard[first : first + num_texts]), dtype=np.float32))
            seconds.append((time.perf_counter() - start) / num_texts)
        tried.append(float(np.mean(seconds)))
    return np.concatenate(vectors), tried


def plan_index(
    dataset: Dataset,
    encoder: Encoder,
    output_dir: str | Path,
    *,
    factory: str = "Flat",
    metric_type: int = faiss.METRIC_L2,
    train_size: int = 100_000,
    shard_size: int = 4096,
    vector_dtype: DTypeLike = np.float32,
    model: PreTrainedModel | None = None,
    seed: int = 0,
) -> Plan:
    """Plans [`UpstreamIndex.build`] with the same arguments; with `model`, plans [`ReCrossPipeline.build`].

    Some hundred examples of all lengths, and the longest of some thousand, are encoded. Every process must call it.

    Args:
        dataset: Upstream examples.
        encoder: Encoder of the index.
        output_dir: Folder that the index goes to.
        factory: FAISS factory string of the index.
        metric_type: FAISS metric of the index.
        train_size: Vectors that the index is trained on, at most.
        shard_size: Examples whose vectors are kept in one file while the index is built.
        vector_dtype: Type of the vectors in these files.
        model: Upstream model, which a pipeline keeps beside its index.
        seed: Seed for drawing the examples that are tried out.

    Returns:
        The plan.

    Raises:
        RuntimeError: FAISS takes no such factory string.
    """
    state = process_state()
    rows = np.random.default_rng(seed).choice(len(dataset), min(len(dataset), PROBE_EXAMPLES), replace=False)
    sample = dataset.select(rows)
    vectors, tried = try_encoding(encoder, texts_of(sample), shard_size)
    dimension = vectors.shape[1]
    of_vectors = np.dtype(vector_dtype).itemsize * dimension * len(dataset)
    empty = empty_index(dimension, factory, metric_type)
    held, written = _bytes_of(empty, len(dataset))
    of_index = held + written
    assembling = _assembling_seconds(vectors, len(dataset), factory, metric_type, train_size)
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(sample, Path(folder) / "examples.parquet")
        of_examples = round((Path(folder) / "examples.parquet").stat().st_size / len(sample) * len(dataset))
    of_model = stored_bytes(model) if model else 0
    encoding = TimeEstimate.of(tried, math.ceil(len(dataset) / state.num_processes))
    total = encoding.plus(assembling)
    # Beside the encoder, the main process holds training vectors, whatever of the index cannot be written as it comes, and one more shard.
    held += 4 * dimension * (min(train_size, len(dataset)) * (not empty.is_trained) + shard_size)
    return Plan.after_probe(
        output_dir,
        state.device,
        work=f"An index of {len(dataset):,} examples, {dimension} dimensions, {factory}",
        probe=f"{len(vectors):,} examples encoded",
        seconds=total,
        shared=encoding.expected / total.expected,
        memory=peak_memory() + held,
        disk=of_vectors + of_index + of_examples + of_model,
        kept=of_index + of_examples + of_model,
        num_processes=state.num_processes,
        advice={
            "memory": "Choose a smaller index, such as --factory SQ8 (a quarter of Flat) or IVF1024,PQ48np.",
            "device_memory": "Lower the encoder's `token_budget` or `max_length`, or encode in bfloat16 (--bf16).",
            "disk": f"{LESS_DISK}, or choose a smaller index, such as --factory SQ8; the vectors of a build are deleted at its end.",
        },
    )
