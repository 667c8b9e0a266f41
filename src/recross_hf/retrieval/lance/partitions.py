"""The partitions of float16 vectors, found in float32.

Lance compares vectors with the centres of partitions in their own type. A CPU without arithmetic in float16, which most are, does that one
number after the other: with 1,024 partitions of 384 dimensions it took 583 microseconds a vector, and 21 with what stands here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa

from .layout import VECTOR, float32_array, scanned, written
from .location import Location, load_lance

TRAINED_ON = 64
"""Vectors a partition that its centre is found from."""
_ITERATIONS = 20
FAISS_METRICS = {"l2": faiss.METRIC_L2, "inner_product": faiss.METRIC_INNER_PRODUCT}
"""Metrics of an index, and what FAISS calls them."""


@contextmanager
def float32_partitions(dataset: Any, metric: str, num_partitions: int) -> Iterator[dict[str, Any]]:
    """The centres of partitions and the partition of each vector, as arguments of `create_index`; none where vectors are of float32, or
    fewer than partitions, of which Lance makes fewer.

    The centres are those of k-means on vectors at even distances in the order of the rows, so that the same data have the same ones.

    Args:
        dataset: The `lance` data set.
        metric: Metric of the index, "l2" or "inner_product".
        num_partitions: Number of partitions.

    Raises:
        OSError: The folder for temporary files is full, or cannot be written.
    """
    kind, num_rows = dataset.schema.field(VECTOR).type, dataset.count_rows()
    if kind.value_type != pa.float16() or num_rows < num_partitions:
        yield {}
        return
    places = np.linspace(0, num_rows - 1, min(TRAINED_ON * num_partitions, num_rows)).astype(np.int64)
    sample = float32_array(dataset.take(places, columns=[VECTOR])[VECTOR].combine_chunks())
    # FAISS would warn of fewer than 39 vectors a partition, and draw from more than 256.
    clustering = faiss.Kmeans(
        kind.list_size,
        num_partitions,
        niter=_ITERATIONS,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    clustering.train(sample)
    # An index searches by the centres as they are stored. Of vectors that are alike, FAISS makes centres a little beyond them.
    largest = np.finfo(np.float16).max
    centres = clustering.centroids.clip(-largest, largest).astype(np.float16)
    search = faiss.IndexFlat(kind.list_size, FAISS_METRICS[metric])
    search.add(centres.astype(np.float32))

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in scanned(dataset, columns=[VECTOR], with_row_id=True):
            nearest = search.search(float32_array(batch[VECTOR]), 1)[1][:, 0]
            yield pa.record_batch([batch["_rowid"], pa.array(nearest, pa.uint32())], schema=schema)

    schema = pa.schema({"row_id": pa.uint64(), "partition": pa.uint32()})
    with tempfile.TemporaryDirectory(prefix="recross_hf_") as name:
        found = Path(name) / "partitions.lance"
        # Lance takes one fragment alone, and by default would begin another after some rows.
        with written(Location(name), "the partition of each vector"):
            load_lance().write_dataset(
                pa.RecordBatchReader.from_batches(schema, batches()),
                str(found),
                max_rows_per_file=num_rows,
                max_bytes_per_file=1 << 60,
            )
        flat = pa.array(centres.reshape(-1))
        yield {
            "ivf_centroids": pa.FixedSizeListArray.from_arrays(flat, kind.list_size),
            "precomputed_partition_dataset": str(found),
        }
