"""The IVF-PQ index of a version that workers wrote: built on the cluster, and measured before anyone sees it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

from ..lance.layout import VECTOR
from ..lance.location import Location, load_lance

FEWEST_INDEXED = 50_000
"""Rows below which all vectors are compared, which takes milliseconds and is exact."""
_DIMENSIONS_A_BYTE = 8


@dataclass(frozen=True)
class IndexSettings:
    """Settings of an IVF-PQ index.

    Attributes:
        metric: Metric, "l2" or "inner_product".
        num_partitions: Number of lists; by default the root of the number of rows.
        num_sub_vectors: Bytes a vector in the index; by default one for eight dimensions.
        fewest_indexed: Rows below which there is no index, and all vectors are compared.
    """

    metric: Literal["l2", "inner_product"] = "l2"
    num_partitions: int | None = None
    num_sub_vectors: int | None = None
    fewest_indexed: int = FEWEST_INDEXED

    def resolved(self, num_rows: int, dimension: int) -> dict[str, int]:
        """The numbers of lists and of bytes a vector for so many rows.

        Raises:
            ValueError: The dimension cannot be cut into so many parts.
        """
        partitions = self.num_partitions or max(round(math.sqrt(num_rows)), 1)
        parts = self.num_sub_vectors or math.gcd(dimension, max(dimension // _DIMENSIONS_A_BYTE, 1))
        if dimension % parts:
            raise ValueError(
                f"Expected `num_sub_vectors` that divides the {dimension} dimensions, found {parts}. Choose another number."
            )
        return {"num_partitions": partitions, "num_sub_vectors": parts}


def build_vector_index(
    ray: ModuleType, location: Location, version: int, settings: IndexSettings, num_workers: int
) -> tuple[int, dict[str, Any]]:
    """Builds the index of a version in a task on the cluster: training it takes memory that the driver may not have.

    Args:
        ray: Ray, connected.
        location: Where the data set is.
        version: Version to index.
        settings: Settings of the index.
        num_workers: Number of workers that build it.

    Returns:
        The version that has the index, and what describes it, as JSON values.
    """
    num_nodes = sum(node["Alive"] for node in ray.nodes())
    task = ray.remote(_indexed).options(num_cpus=1, max_retries=0)
    result: tuple[int, dict[str, Any]] = ray.get(
        task.remote(location, version, settings, num_workers if num_nodes > 1 else 0)
    )
    return result


def _indexed(
    location: Location, version: int, settings: IndexSettings, num_workers: int
) -> tuple[int, dict[str, Any]]:
    """Builds the index: with lance-ray's workers, each over some fragments, or with the threads of this node alone."""
    dataset = load_lance().dataset(location.uri, version=version, storage_options=location.options)
    num_rows = dataset.count_rows()
    if num_rows < settings.fewest_indexed:
        return version, {"metric": settings.metric, "index": None}
    numbers = settings.resolved(num_rows, dataset.schema.field(VECTOR).type.list_size)
    metric = {"l2": "l2", "inner_product": "dot"}[settings.metric]
    if num_workers:
        from lance_ray import create_index

        dataset = create_index(dataset, VECTOR, "IVF_PQ", metric=metric, num_workers=num_workers, **numbers)
    else:
        dataset = dataset.create_index(VECTOR, "IVF_PQ", metric=metric, replace=True, **numbers) or dataset
    return int(dataset.version), {"metric": settings.metric, "index": {"kind": "IVF_PQ", **numbers}}
