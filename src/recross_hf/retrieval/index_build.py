"""Building an index: vectors in shards on disk, which many processes encode and a killed build keeps, then the FAISS file."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from numpy.typing import DTypeLike

from ..core.distributed import process_state
from ..core.output_folders import folder_to_write
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
    _encode_missing(shards, range(len(shards)), dataset, encoder, state)
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


def encode_part(
    dataset: Dataset,
    encoder: Encoder,
    output_dir: str | Path,
    *,
    part: int,
    num_parts: int,
    shard_size: int = 4096,
    vector_dtype: DTypeLike = np.float32,
) -> None:
    """Encodes one part of the vectors that [`UpstreamIndex.build`] indexes, and waits for no other part.

    Nodes that do not know of one another, as in a job array, each encode a part, whenever they run, to a folder that
    they share; a killed one continues when it is called again. `build` with the same arguments, called last, finds
    the vectors there and encodes those that are missing.

    Args:
        dataset: All examples, as for `build`.
        encoder: Encoder of the inputs.
        output_dir: Folder that the nodes share and `build` writes.
        part: Number of the part, from 0 on.
        num_parts: Number of parts.
        shard_size: Examples a shard.
        vector_dtype: Type of the shards, `np.float32` or `np.float16`.

    Raises:
        ExampleError: `dataset` does not have the schema's columns.
        IndexMismatchError: `output_dir` holds the shards of another build.
        ValueError: There is no such part, or no such type of shards.
    """
    if not 0 <= part < num_parts:
        raise ValueError(f"Expected a part from 0 to {num_parts - 1} of {num_parts} parts, found {part}.")
    state, shards = process_state(), _shards(folder_to_write(output_dir), dataset, shard_size, vector_dtype)
    _open_on_all_processes(shards, describe(dataset, encoder), encoder, state)
    _encode_missing(shards, range(part, len(shards), num_parts), dataset, encoder, state)


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


def _encode_missing(
    shards: VectorShards, numbers: Iterable[int], dataset: Dataset, encoder: Encoder, state: PartialState
) -> None:
    """Encodes those of the shards that are missing, spread evenly over the processes, whoever left them."""
    (missing,) = broadcast_object_list([sorted(set(numbers) & set(shards.missing()))])
    mine = missing[state.process_index :: state.num_processes]
    shards.encode(dataset, encoder, mine, show_progress=state.is_main_process)
    state.wait_for_everyone()
