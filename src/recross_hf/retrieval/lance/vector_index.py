"""The index over the vectors of a Lance data set, and how deep it is searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .layout import VECTOR, check_unchanged, written
from .location import Location, load_lance
from .partitions import float32_partitions

Metric = Literal["l2", "inner_product"]
METRICS: Mapping[Metric, str] = {"l2": "l2", "inner_product": "dot"}
"""Metrics of an index, and what Lance calls them."""
FEWEST_INDEXED = 50_000
"""Rows below which all vectors are compared, which takes milliseconds and is exact."""
ROWS_A_PARTITION = 4096
_CODES = {"IVF_RQ": "num_bits", "IVF_PQ": "num_sub_vectors"}


@dataclass(frozen=True)
class SearchDepth:
    """How deep an index is searched: more of both takes longer and finds more of the nearest examples.

    Attributes:
        nprobes: Partitions that a search visits at least; more where filters leave too few hits.
        refine_factor: Hits of the codes for each result, which are ranked again by their vectors.
    """

    nprobes: int
    refine_factor: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            _check_count(name, value)


@dataclass(frozen=True)
class IndexSettings:
    """Settings of the index over the vectors.

    Attributes:
        metric: Metric, "l2" or "inner_product".
        kind: Kind of the index in Lance: "IVF_RQ" (RaBitQ, Gao and Long 2024), or "IVF_PQ", which takes many times as long to build.
        num_partitions: Number of partitions; by default one for 4,096 rows.
        code_size: Bits a dimension of IVF_RQ, from 1 to 9, or bytes a vector of IVF_PQ; by default 2, or a byte for eight dimensions.
        nprobes: Partitions that a search visits; by default a sixteenth of them, and at least 20.
        refine_factor: Hits of the codes for each result, which are ranked again by their vectors.
        fewest_indexed: Rows below which there is no index, and all vectors are compared.
    """

    metric: Metric = "l2"
    kind: Literal["IVF_RQ", "IVF_PQ"] = "IVF_RQ"
    num_partitions: int | None = None
    code_size: int | None = None
    nprobes: int | None = None
    refine_factor: int = 8
    fewest_indexed: int = FEWEST_INDEXED

    def __post_init__(self) -> None:
        for name, value, known in (("metric", self.metric, METRICS), ("kind", self.kind, _CODES)):
            if value not in known:
                raise ValueError(f"Expected `{name}` to be one of {', '.join(known)}, found {value!r}.")
        for name in ("num_partitions", "code_size", "nprobes", "refine_factor"):
            if (value := getattr(self, name)) is not None:
                _check_count(name, value)

    def for_rows(self, num_rows: int, dimension: int) -> dict[str, int]:
        """The index of so many vectors, as Lance takes it; empty where all vectors are compared.

        Raises:
            ValueError: The dimension is none that the index takes.
        """
        if num_rows < self.fewest_indexed:
            return {}
        # Of 100,000 clustered vectors in 384 dimensions, 8 hits for each result have a recall at 64 of 0.97 with 1 bit, of more than 0.999
        # with 2, and of 0.92 with PQ (benchmarks/lance_scale.py).
        size = self.code_size or (2 if self.kind == "IVF_RQ" else max(dimension // 8, 1))
        parts = 8 if self.kind == "IVF_RQ" else size
        if dimension % parts:
            raise ValueError(
                f"Expected vectors of a dimension that {parts} divides for {self.kind}, found {dimension}. Choose "
                f"{'IVF_PQ' if self.kind == 'IVF_RQ' else 'another `code_size`'}."
            )
        partitions = self.num_partitions or max(num_rows // ROWS_A_PARTITION, 1)
        return {"num_partitions": partitions, _CODES[self.kind]: size}

    def depth(self, num_partitions: int) -> SearchDepth:
        """How deep an index of so many partitions is searched by default."""
        nprobes = self.nprobes or max(20, num_partitions // 16)
        return SearchDepth(min(nprobes, num_partitions), self.refine_factor)


def create_indexes(location: Location, version: int, settings: IndexSettings) -> tuple[int, dict[str, Any]]:
    """Indexes the vectors of a version, and what retrievers exclude by, with the threads of this machine.

    Args:
        location: Where the data set is.
        version: Version to index.
        settings: Settings of the index.

    Returns:
        The version that has the indexes, and what describes them in a configuration, as JSON values.

    Raises:
        BuildConflictError: Another build committed since.
        OSError: It could not be written, as on a full disk.
        ValueError: The dimension is none that the index takes.
    """
    check_unchanged(location, version)
    dataset = load_lance().dataset(location.uri, version=version, storage_options=location.options)
    numbers = settings.for_rows(dataset.count_rows(), dataset.schema.field(VECTOR).type.list_size)
    if not numbers:
        return version, described(settings, {})
    try:
        partitions = float32_partitions(dataset, settings.metric, numbers["num_partitions"])
        with partitions as found, written(location, "the index"):
            dataset.create_index(
                VECTOR, settings.kind, metric=METRICS[settings.metric], replace=True, **numbers, **found
            )
            # Without these, each search with exclusions would read the tasks and ids of all rows.
            dataset.create_scalar_index("task", "BITMAP")
            dataset.create_scalar_index("id", "BTREE")
    except OSError:
        check_unchanged(location, int(dataset.version))
        raise
    return int(dataset.version), described(settings, numbers)


def described(settings: IndexSettings, numbers: Mapping[str, int]) -> dict[str, Any]:
    """An index as a configuration describes it, as JSON values.

    Args:
        settings: Settings of the index.
        numbers: What [`IndexSettings.for_rows`] gave.
    """
    if not numbers:
        return {"metric": settings.metric, "index": None, "search": None}
    depth = settings.depth(numbers["num_partitions"])
    return {"metric": settings.metric, "index": {"kind": settings.kind, **numbers}, "search": asdict(depth)}


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"Expected `{name}` to be at least 1, a whole number, found {value!r}.")
