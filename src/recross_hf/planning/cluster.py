"""The plan of building an index on a cluster: hours, bytes and cost on 1, 8 and 64 workers."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.tables import format_table
from ..data.conversations import texts_of
from ..data.schema import MESSAGES
from ..retrieval.cluster.indexing import sample_rate
from ..retrieval.cluster.sources import ParquetSource
from ..retrieval.encoder import Encoder
from ..retrieval.lance.layout import VECTOR, stored_schema, to_table, write_fragment
from ..retrieval.lance.location import Location, load_lance
from ..retrieval.lance.vector_index import METRICS, IndexSettings
from ..retrieval.vector_shards import SHARD_SIZE
from .index import try_encoding
from .plan import TimeEstimate, duration, size
from .probe import PROBE_EXAMPLES

WORKERS = (1, 8, 64)
_PIECES = 16
_INDEXED, _FEW_PARTITIONS, _MANY_PARTITIONS, _ROWS_A_PARTITION = 32_768, 64, 512, 32
_LARGEST_SCAN = 1_000_000
"""Numbers in the centres of partitions from which on Lance finds the nearest one by a graph, whose cost grows with the logarithm."""


@dataclass(frozen=True)
class IndexingTime:
    """Seconds to index vectors, on the cores of the machine that was tried out.

    Attributes:
        training: Seconds to find the partitions, which one node does.
        assigning: Seconds to put all vectors into them, which workers share.
    """

    training: float
    assigning: float


@dataclass(frozen=True, kw_only=True)
class ClusterPlan:
    """What [`build_cluster_index`] will take, extrapolated from a probe; `print(plan)` shows it for 1, 8 and 64 workers.

    Attributes:
        num_examples: Number of examples.
        dimension: Dimension of the vectors.
        num_tried: Number of examples that were encoded.
        encoding: Seconds that one worker encodes.
        indexing: Seconds that one worker indexes.
        disk: Bytes of the storage, by what they hold.
        price_per_hour: Price of a worker for an hour; None where it was not given.
    """

    num_examples: int
    dimension: int
    num_tried: int
    encoding: TimeEstimate
    indexing: IndexingTime
    disk: Mapping[str, int] = field(default_factory=dict)
    price_per_hour: float | None = None

    def seconds_on(self, num_workers: int) -> float:
        """Expected seconds on so many workers like the machine that was tried out."""
        return self.indexing.training + (self.encoding.expected + self.indexing.assigning) / num_workers

    def cost_on(self, num_workers: int) -> float:
        """Price of so many workers for the whole time.

        Raises:
            ValueError: The price of an hour was not given.
        """
        if self.price_per_hour is None:
            raise ValueError("Expected a plan with `price_per_hour`, found one without.")
        return self.seconds_on(num_workers) / 3600 * num_workers * self.price_per_hour

    def __str__(self) -> str:
        priced = self.price_per_hour is not None
        rows = [
            [
                str(number),
                duration(self.encoding.expected / number),
                duration(self.seconds_on(number) - self.encoding.expected / number),
                duration(self.seconds_on(number)),
                *([f"{self.cost_on(number):,.2f}"] if priced else []),
            ]
            for number in WORKERS
        ]
        head = ["workers", "encoding", "indexing", "together", *(["cost"] if priced else [])]
        per_second = self.num_examples / self.encoding.expected
        return "\n".join(
            [
                f"An index of {self.num_examples:,} examples, {self.dimension} dimensions, on a cluster. Tried out: {self.num_tried:,} examples "
                f"encoded here, {per_second:,.0f} a second.",
                "",
                format_table(head, rows),
                "",
                f"storage: {size(sum(self.disk.values()))} "
                f"({', '.join(f'{name} {size(number)}' for name, number in self.disk.items())})",
                f"one worker encodes for {self.encoding}; a worker is a machine or GPU like this one",
            ]
        )


def plan_cluster_index(
    train_files: str | Sequence[str],
    encoder: Encoder,
    *,
    columns: Mapping[str, str] | None = None,
    vector_dtype: str = "float32",
    settings: IndexSettings | None = None,
    price_per_hour: float | None = None,
    seed: int = 0,
) -> ClusterPlan:
    """Plans [`build_cluster_index`] with the same arguments.

    Examples from all over the files, some hundred of them, are encoded here, and some random vectors are indexed: a worker is taken to
    be a machine like this one.

    Args:
        train_files: Parquet files, folders, patterns or addresses.
        encoder: Encoder of the index, on a device like that of a worker.
        columns: Columns of the files by the names of the schema.
        vector_dtype: Type of the vectors, "float32" or "float16".
        settings: Settings of the index over the vectors.
        price_per_hour: Price of a worker for an hour.
        seed: Seed for drawing the examples that are tried out.

    Returns:
        The plan.
    """
    source, dtype = ParquetSource.of(train_files, columns), np.dtype(vector_dtype)
    sample = _sample(source, seed)
    names = [name for name in ("input", MESSAGES) if name in sample.column_names]
    vectors, tried = try_encoding(encoder, texts_of({name: sample[name].to_pylist() for name in names}), SHARD_SIZE)
    num_rows, dimension = source.num_rows, vectors.shape[1]
    numbers = (settings or IndexSettings()).for_rows(num_rows, dimension)
    kind = (settings or IndexSettings()).kind
    return ClusterPlan(
        num_examples=num_rows,
        dimension=dimension,
        num_tried=len(vectors),
        encoding=TimeEstimate.of(tried, num_rows),
        indexing=_indexing_time(num_rows, dimension, kind, numbers, seed) if numbers else IndexingTime(0.0, 0.0),
        disk={
            "vectors": num_rows * dimension * dtype.itemsize,
            "examples": _bytes_of_examples(sample, num_rows),
            "index": index_bytes(num_rows, dimension, numbers) + _bytes_of_ids(sample, num_rows) * bool(numbers),
        },
        price_per_hour=price_per_hour,
    )


def index_bytes(num_rows: int, dimension: int, numbers: Mapping[str, int]) -> int:
    """Bytes of the index over the vectors: the codes, the number of each row beside them, and the partitions.

    Args:
        num_rows: Number of vectors.
        dimension: Dimension of the vectors.
        numbers: What [`IndexSettings.for_rows`] gives.
    """
    if not numbers:
        return 0
    # RaBitQ keeps two numbers of four bytes beside each code.
    code = numbers["num_bits"] * dimension / 8 + 8 if "num_bits" in numbers else numbers["num_sub_vectors"]
    return round(num_rows * (code + 8) + numbers["num_partitions"] * dimension * 4)


def _sample(source: ParquetSource, seed: int) -> pa.Table:
    """Rows from all over the files, in any order: a prefix of task-sorted data would mislead."""
    generator, pieces = np.random.default_rng(seed), source.chunks(PROBE_EXAMPLES // _PIECES)
    numbers = generator.choice(len(pieces), min(len(pieces), _PIECES), replace=False)
    sample = pa.concat_tables([source.read(pieces[number]) for number in numbers])
    return sample.take(generator.permutation(len(sample)))


def _bytes_of_ids(sample: pa.Table, num_rows: int) -> int:
    """Bytes of the index over ids, which has each of them and where its row is."""
    return round((pc.mean(pc.binary_length(sample["id"])).as_py() + 16) * num_rows)


def _bytes_of_examples(sample: pa.Table, num_rows: int) -> int:
    """Bytes of all examples as Lance stores them, without their vectors."""
    with tempfile.TemporaryDirectory() as folder:
        schema = stored_schema(sample.schema, 1)
        write_fragment(Location.of(folder), to_table(sample, np.zeros((len(sample), 1), dtype=np.float32), schema))
        stored = sum(path.stat().st_size for path in Path(folder).rglob("*.lance"))
    return round(max(stored - 4 * len(sample), 0) / len(sample) * num_rows)


def _indexing_time(num_rows: int, dimension: int, kind: str, numbers: Mapping[str, int], seed: int) -> IndexingTime:
    """Seconds to index all vectors, from random ones in few and in many partitions: a vector is compared with each of not too many."""
    lance = load_lance()
    from lance.indices import IndicesBuilder

    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(_INDEXED, dimension)).astype(np.float32)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dimension)
    partitions = numbers["num_partitions"]
    rest = {name: number for name, number in numbers.items() if name != "num_partitions"}
    with tempfile.TemporaryDirectory() as folder:
        dataset = lance.write_dataset(pa.table({VECTOR: flat}), folder)
        seconds = {}
        for number in (_FEW_PARTITIONS, _MANY_PARTITIONS):
            start = time.perf_counter()
            trained = IndicesBuilder(dataset, VECTOR).train_ivf(num_partitions=number, sample_rate=_ROWS_A_PARTITION)
            training = time.perf_counter() - start
            start = time.perf_counter()
            dataset.create_index(
                VECTOR,
                kind,
                metric=METRICS["l2"],
                replace=True,
                num_partitions=number,
                ivf_centroids=trained.centroids,
                **rest,
            )
            seconds[number] = (time.perf_counter() - start) / _INDEXED
    slope = max(seconds[_MANY_PARTITIONS] - seconds[_FEW_PARTITIONS], 0.0) / (_MANY_PARTITIONS - _FEW_PARTITIONS)
    scanned = max(min(partitions, _LARGEST_SCAN // dimension), 2)
    compared = scanned * max(math.log(max(partitions, 2)) / math.log(scanned), 1.0)
    a_row = max(seconds[_FEW_PARTITIONS] + slope * (compared - _FEW_PARTITIONS), min(seconds.values()))
    # More partitions than these are found level by level.
    levels = max(math.log(max(partitions, 2)) / math.log(_MANY_PARTITIONS), 1.0)
    trained_on = min(partitions * sample_rate(partitions), num_rows)
    return IndexingTime(training / (_MANY_PARTITIONS * _ROWS_A_PARTITION) * trained_on * levels, a_row * num_rows)
