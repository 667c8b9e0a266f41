"""Writing a Lance data set from one process, with the layout of the cluster's engine."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

from ...core.progress import progress_bar
from ...data.conversations import texts_of
from ...data.schema import MESSAGES
from ..encoder import Encoder
from ..index_identity import describe
from ..vector_shards import SHARD_SIZE, as_stored, encode, encode_shard, probes_for
from .config import FORMAT_VERSION
from .layout import commit, current_version, finish, stored_schema, to_table, write_fragment
from .location import Location
from .recall import check_recall
from .vector_index import IndexSettings, create_indexes

_SHARDS_A_FRAGMENT = 8


def write_index(
    location: Location,
    dataset: Dataset,
    encoder: Encoder,
    *,
    settings: IndexSettings,
    vector_dtype: np.dtype,
    min_recall: float,
) -> int:
    """Encodes examples, writes them with their vectors, indexes these and tags the version.

    Args:
        location: Where the data set is, or will be.
        dataset: Examples of the schema.
        encoder: Encoder of the inputs.
        settings: Settings of the index over the vectors.
        vector_dtype: Type of the vectors.
        min_recall: Recall below which the build is refused.

    Returns:
        The number of the version.

    Raises:
        BuildConflictError: Another build wrote to the storage meanwhile.
        ExampleError: `dataset` does not have the schema's columns, or ids in it repeat.
        OSError: The storage cannot be written.
        RecallError: The index finds too few of the nearest examples.
        ValueError: A vector is not finite, or a setting is wrong.
    """
    read_version = current_version(location)
    identity, probes = describe(dataset, encoder), encode(encoder, probes_for(encoder))
    dimension = probes.shape[1]
    schema = stored_schema(dataset.features.arrow_schema, dimension, vector_dtype)
    settings.for_rows(len(dataset), dimension)  # what Lance does not take is said now and not after hours of encoding
    examples = dataset.select_columns([name for name in schema.names if name in dataset.column_names])
    fragments = []
    with progress_bar(total=len(dataset), desc="Encoding", unit="ex") as progress:
        for start in range(0, len(dataset), _SHARDS_A_FRAGMENT * SHARD_SIZE):
            rows = range(start, min(start + _SHARDS_A_FRAGMENT * SHARD_SIZE, len(dataset)))
            shards = [
                _encoded(dataset, encoder, rows[first : first + SHARD_SIZE], vector_dtype, progress)
                for first in range(0, len(rows), SHARD_SIZE)
            ]
            table = examples.with_format("arrow")[rows.start : rows.stop]
            fragments.append(write_fragment(location, to_table(table, np.concatenate(shards), schema)))
    version = commit(location, fragments, schema, read_version=read_version)
    version, described = create_indexes(location, version, settings)
    config = identity | {
        "format_version": FORMAT_VERSION,
        "probes": probes.tolist(),
        "dimension": dimension,
        "vector_dtype": vector_dtype.name,
        **described,
        **check_recall(location, version, described, least=min_recall),
    }
    return finish(location, version, config)


def _encoded(dataset: Dataset, encoder: Encoder, rows: range, dtype: np.dtype, progress: Any) -> np.ndarray:
    """The vectors of some rows, encoded together as a shard is; the bar moves on."""
    names = [name for name in ("input", MESSAGES) if name in dataset.column_names]
    before = progress.n
    texts = texts_of(dataset.select_columns(names)[rows.start : rows.stop])
    vectors = encode_shard(encoder, texts, progress.update)
    progress.update(before + len(rows) - progress.n)  # texts that are repeated are encoded once
    return as_stored(vectors, dtype, lambda row: str(dataset[rows.start + row]["id"]))
