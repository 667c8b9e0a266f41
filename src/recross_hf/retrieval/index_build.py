"""Building an index: vectors in shards on disk, which many processes encode and a killed build keeps, then the FAISS file."""

from __future__ import annotations

import logging
import shutil
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from numpy.typing import DTypeLike

from ..core.distributed import process_state
from .encoder import Encoder
from .faiss_indexes import check_can_be_built, empty_index, train
from .faiss_io import fill_and_write
from .index_files import FORMAT_VERSION, METRIC_NAMES, write_index_files
from .index_identity import describe
from .vector_shards import SHARDS_FOLDER, VectorShards

logger = logging.getLogger(__name__)


def build_index_files(
    folder: Path,
    dataset: Dataset,
    encoder: Encoder,
    *,
    factory: str,
    metric_type: int,
    train_size: int,
    nprobe: int | None,
    shard_size: int,
    vector_dtype: DTypeLike,
    seed: int,
) -> None:
    """Writes the folder of an index.

    Args:
        folder: Folder to write.
        dataset: Examples of the schema.
        encoder: Encoder of the inputs.
        factory: FAISS factory string.
        metric_type: Metric, `faiss.METRIC_L2` or `faiss.METRIC_INNER_PRODUCT`.
        train_size: Number of vectors, drawn at random, that an index which needs training is trained on.
        nprobe: Lists that an IVF index visits in a search; a sixteenth of them by default.
        shard_size: Examples a shard.
        vector_dtype: Type of the shards, `np.float32` or `np.float16`.
        seed: Seed for drawing training vectors.

    Raises:
        ExampleError: `dataset` does not have the schema's columns.
        IndexMismatchError: `folder` holds the shards of another build.
        ValueError: The factory string, the amount of data it needs, or a number is wrong.
    """
    if metric_type not in METRIC_NAMES:
        raise ValueError(f"Expected faiss.METRIC_L2 or faiss.METRIC_INNER_PRODUCT, found {metric_type}.")
    for name, value, least in (("train_size", train_size, 1), ("shard_size", shard_size, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or value < least:
            raise ValueError(f"Expected `{name}` to be at least {least}, a whole number, found {value!r}.")
    state, identity = process_state(), describe(dataset, encoder)
    shards = _shards(folder, dataset, shard_size, vector_dtype)
    probes = _open_on_all_processes(shards, identity, encoder, state)
    # What FAISS does not take is said now and not after hours of encoding.
    index = empty_index(probes.shape[1], factory, metric_type, nprobe, num_vectors=len(dataset))
    check_can_be_built(probes.shape[1], factory, metric_type, num_vectors=len(dataset), train_size=train_size)
    _encode_missing(shards, dataset, encoder, state)
    if state.is_main_process:
        shards.check_complete()
        if not index.is_trained:
            train(index, shards.sample(train_size, seed), factory)
        config = identity | {
            "format_version": FORMAT_VERSION,
            "metric": METRIC_NAMES[metric_type],
            "factory": factory,
            "dimension": index.d,
            "vector_dtype": shards.dtype.name,
            "probes": probes.tolist(),
        }
        write_index_files(folder, lambda path: fill_and_write(index, shards, len(dataset), path), dataset, config)
        # The folder is renamed first: half deleted, it would look like that of an unfinished build.
        done = shards.folder.with_suffix(".done")
        shutil.rmtree(done, ignore_errors=True)
        shutil.rmtree(shards.folder.rename(done))
    state.wait_for_everyone()


def _shards(folder: Path, dataset: Dataset, shard_size: int, vector_dtype: DTypeLike) -> VectorShards:
    try:
        dtype = np.dtype(vector_dtype)
    except TypeError as error:
        raise ValueError(f"Expected vectors in float32 or float16, found {vector_dtype!r}.") from error
    if dtype not in (np.float32, np.float16):
        raise ValueError(f"Expected vectors in float32 or float16, found {dtype}. For 8 bits, see the factory SQ8.")
    return VectorShards(folder / SHARDS_FOLDER, len(dataset), shard_size, dtype)


def _open_on_all_processes(
    shards: VectorShards, identity: dict[str, Any], encoder: Encoder, state: PartialState
) -> np.ndarray:
    """The probes. Each process compares its data and its encoder: a node may have others than the main process."""
    if state.is_main_process:
        if shards.folder.is_dir():
            logger.warning("Continuing the unfinished build in %s.", shards.folder)
        probes = shards.open(identity, encoder)
    state.wait_for_everyone()
    return probes if state.is_main_process else shards.open(identity, encoder)


def _encode_missing(shards: VectorShards, dataset: Dataset, encoder: Encoder, state: PartialState) -> None:
    """Encodes the shards that are missing, spread evenly over the processes, whoever left them."""
    (missing,) = broadcast_object_list([shards.missing()])
    mine = missing[state.process_index :: state.num_processes]
    shards.encode(dataset, encoder, mine, show_progress=state.is_main_process)
    state.wait_for_everyone()
