"""How many of the nearest examples an index finds, measured after each build: a distributed one may find too few."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth

from .layout import VECTOR, float32_array, scanned
from .location import Location, load_lance
from .partitions import FAISS_METRICS
from .search import RowAddresses, nearest_rows, read_vectors
from .vector_index import Metric, SearchDepth

RECALL_AT = 64
LEAST_RECALL = 0.9
"""Recall below which a build is refused."""


class RecallError(ValueError):
    """The index of a build finds too few of the nearest examples; the message says how many, and which settings to raise."""


def measured_recall(
    dataset: Any,
    *,
    metric: Metric,
    depth: SearchDepth | None,
    k: int = RECALL_AT,
    num_queries: int = 128,
    seed: int = 0,
) -> float:
    """The share of the exact `k` nearest examples that an index finds, of stored vectors that are drawn at random.

    The exact ones come of one pass over all vectors. A vector's own row, which any index finds, does not count.

    Args:
        dataset: The version, as Lance opens it.
        metric: Metric of the index.
        depth: How deep the index is searched; `None` where there is none.
        k: Number of neighbours; fewer where there are no more.
        num_queries: Number of vectors that are drawn.
        seed: Seed for drawing them.
    """
    addresses = RowAddresses(dataset)
    k = min(k, len(addresses) - 1)
    if depth is None or k < 1:
        return 1.0
    count = min(num_queries, len(addresses))
    drawn = np.sort(np.random.default_rng(seed).choice(len(addresses), count, replace=False))
    vectors = read_vectors(dataset, drawn)
    found = nearest_rows(dataset, addresses, vectors, k + 1, metric=metric, depth=depth).positions
    # FAISS compares in float32. Lance compares float16 in float16, which takes many times as long where a CPU has no arithmetic for it.
    blocks = (float32_array(batch[VECTOR]) for batch in scanned(dataset, columns=[VECTOR]))
    exact = knn_ground_truth(vectors, blocks, k + 1, FAISS_METRICS[metric])[1]
    shares = []
    for own, expected, hits in zip(drawn, exact, found, strict=True):
        others = expected[expected != own][:k]
        shares.append(np.isin(others, hits).mean())
    return float(np.mean(shares))


def check_recall(
    location: Location, version: int, described: Mapping[str, Any], *, least: float = LEAST_RECALL
) -> dict[str, Any]:
    """Measures the recall of a version's index before the version is tagged.

    Args:
        location: Where the data set is.
        version: Version with its index.
        described: `metric` and `search` of its configuration.
        least: Recall that is expected.

    Returns:
        The recall as a configuration has it: `{"recall": {"at": 64, "value": 0.97}}`.

    Raises:
        RecallError: It is below `least`.
    """
    dataset = load_lance().dataset(location.uri, version=version, storage_options=location.options)
    search = described["search"]
    depth = None if search is None else SearchDepth(**search)
    value = measured_recall(dataset, metric=described["metric"], depth=depth)
    if depth is not None and value < least:
        raise RecallError(
            f"Expected the index to find at least {least:.2f} of the {RECALL_AT} nearest examples, found {value:.3f} in version {version} of "
            f"{location.uri}, which stays unseen. Raise `refine_factor` ({depth.refine_factor}) or `nprobes` ({depth.nprobes}), which only "
            "makes searches slower, or `code_size`, which makes the index larger; or lower the bound, `min_recall`."
        )
    return {"recall": {"at": RECALL_AT, "value": round(value, 4)}}
