"""The index over the vectors that workers wrote: built on the cluster, and measured before anyone sees it."""

from __future__ import annotations

import os
from types import ModuleType
from typing import Any

import faiss

from ..lance.layout import VECTOR, check_unchanged
from ..lance.location import Location, load_lance
from ..lance.recall import check_recall
from ..lance.vector_index import METRICS, IndexSettings, create_indexes, described
from .engine import result_of

FEWEST_SPREAD = 1_000_000
"""Rows below which one node builds the index sooner than it could be spread over several."""
_MOST_TRAINED_ON, _LEAST_A_PARTITION, _MOST_A_PARTITION = 2_000_000, 64, 256


def index_on_cluster(
    ray: ModuleType,
    location: Location,
    version: int,
    settings: IndexSettings,
    *,
    num_rows: int,
    num_workers: int,
    min_recall: float,
) -> tuple[int, dict[str, Any]]:
    """Indexes the vectors of a version, and what retrievers exclude by, in a task: training takes memory that the driver may not have.

    Args:
        ray: Ray, connected.
        location: Where the data set is.
        version: Version to index.
        settings: Settings of the index.
        num_rows: Number of rows.
        num_workers: Number of workers that share the rows, where there are several nodes and many rows.
        min_recall: Recall below which the build is refused.

    Returns:
        The version that has the indexes, and what describes them in a configuration, as JSON values.

    Raises:
        BuildConflictError: Another build committed since.
        RecallError: The index finds too few of the nearest examples.
    """
    is_spread = num_rows >= FEWEST_SPREAD and sum(node["Alive"] for node in ray.nodes()) > 1
    task = ray.remote(_indexed).options(num_cpus=1)
    ref = task.remote(location, version, settings, num_workers if is_spread else 0, min_recall)
    found: tuple[int, dict[str, Any]] = result_of(ray, ref)
    return found


def sample_rate(num_partitions: int) -> int:
    """Vectors a partition to train on: fewer of many partitions, so that they fit into the memory of a node."""
    return min(max(_MOST_TRAINED_ON // num_partitions, _LEAST_A_PARTITION), _MOST_A_PARTITION)


def _indexed(
    location: Location, version: int, settings: IndexSettings, num_workers: int, min_recall: float
) -> tuple[int, dict[str, Any]]:
    if num_workers:
        version, description = _create_with_workers(location, version, settings, num_workers)
    else:
        # Ray gives a task of one CPU one thread of OpenMP, which FAISS takes. Nothing else runs by now, and Lance takes all cores as well.
        faiss.omp_set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
        version, description = create_indexes(location, version, settings)
    return version, description | check_recall(location, version, description, least=min_recall)


def _create_with_workers(
    location: Location, version: int, settings: IndexSettings, num_workers: int
) -> tuple[int, dict[str, Any]]:
    """What [`create_indexes`] does, with the vectors shared by workers of lance-ray: each indexes some fragments, with the same partitions."""
    from lance_ray import create_index

    check_unchanged(location, version)
    dataset = load_lance().dataset(location.uri, version=version, storage_options=location.options)
    numbers = settings.for_rows(dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size)
    if not numbers:
        return version, described(settings, {})
    kind, metric = settings.kind, METRICS[settings.metric]
    dataset = create_index(
        dataset,
        VECTOR,
        kind,
        metric=metric,
        num_workers=num_workers,
        sample_rate=sample_rate(numbers["num_partitions"]),
        **numbers,
    )
    # These are small beside the vectors.
    dataset.create_scalar_index("task", "BITMAP")
    dataset.create_scalar_index("id", "BTREE")
    return int(dataset.version), described(settings, numbers)
