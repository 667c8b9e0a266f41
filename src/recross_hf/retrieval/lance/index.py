"""`LanceIndex`: a version of a Lance data set with upstream examples and their vectors, which is searched where it is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
from datasets import Dataset
from numpy.typing import DTypeLike

from ...data.schema import COLUMNS
from ..aggregation import Hits
from ..encoder import Encoder
from ..index import UpstreamIndex
from ..index_identity import check_encoder, check_reading
from ..index_search import checked_queries
from ..vector_shards import IndexMismatchError
from .config import read_config
from .layout import TAG, VECTOR, scanned, stored_schema
from .location import Location, load_lance
from .recall import LEAST_RECALL
from .search import RowAddresses, nearest_rows, read_rows, read_vectors
from .vector_index import IndexSettings, SearchDepth
from .writing import write_index


class LanceIndex:
    """Upstream examples and their vectors in a Lance data set, and the encoder that made the vectors.

    ```python
    index = LanceIndex.build(load_examples("upstream/*.parquet"), encoder, "index.lance")
    index = LanceIndex.from_pretrained("s3://bucket/index.lance", encoder=encoder)
    hits = index.search(encoder.encode(["..."]), k=32)
    index.rows(hits.positions[0])
    ```

    It is opened where it is, on disk, in an object store or on the Hub, without being copied, and a search reads what it needs. It has one
    version of the data set: whoever writes the next one meanwhile changes nothing here. [`LanceRetriever`] retrieves from it.

    Args:
        dataset: The version, as Lance opens it.
        location: Where it is.
        encoder: Encoder of the queries, which must be the one that encoded the examples.
        config: What the vectors depend on, and how they are indexed.

    Attributes:
        depth: How deep the index is searched, which may be assigned; `None` where all vectors are compared.
    """

    def __init__(self, dataset: Any, location: Location, encoder: Encoder, config: dict[str, Any]) -> None:
        self._lance = dataset
        self.location = location
        self.encoder = encoder
        self.config = config
        self.depth = None if config["search"] is None else SearchDepth(**config["search"])
        self._addresses = RowAddresses(dataset)

    def __len__(self) -> int:
        return len(self._addresses)

    @property
    def version(self) -> int:
        """Number of the version."""
        return int(self._lance.version)

    @property
    def dataset(self) -> NoReturn:
        """The examples as a whole, which are not read from here.

        Raises:
            TypeError: Always; [`LanceIndex.rows`] reads some of them.
        """
        raise TypeError(
            f"Expected an `UpstreamIndex`, whose examples are a `Dataset`, found a LanceIndex of {len(self):,}, which are not read as a whole. "
            "Read some of them with `index.rows(positions)`, or build an `UpstreamIndex` of fewer examples."
        )

    @cached_property
    def content_hash(self) -> str:
        """A hash of which examples and vectors they are, the same for a copy: each file has a name that no other file has."""
        files = [file.path for fragment in self._lance.get_fragments() for file in fragment.metadata.files]
        return sha256("\n".join(files).encode()).hexdigest()

    # ---- building and opening --------------------------------------------------------------------------------------

    @classmethod
    def build(
        cls,
        dataset: Dataset,
        encoder: Encoder,
        storage: str | Path | Location,
        *,
        settings: IndexSettings | None = None,
        vector_dtype: DTypeLike = np.float32,
        min_recall: float = LEAST_RECALL,
    ) -> LanceIndex:
        """Encodes the inputs of `dataset` in this process and writes a new version; readers see it once it is whole.

        `recross index --engine ray` writes the same rows and vectors with many workers, and continues where a killed build stopped.
        A killed build of this function leaves files that no version names, which Lance's `cleanup_old_versions` deletes after a week. Finished
        versions stay.

        Args:
            dataset: Examples of the schema ([`load_examples`]).
            encoder: Encoder of the inputs.
            storage: Folder, `lance://FOLDER`, or an address such as `s3://bucket/index.lance` or `hf://datasets/org/name/index.lance`.
            settings: Settings of the index over the vectors.
            vector_dtype: Type of the vectors, `np.float32`, or `np.float16` for half the disk and about three digits.
            min_recall: Recall at 64 below which the build is refused.

        Raises:
            BuildConflictError: Another build wrote to the storage meanwhile.
            ExampleError: `dataset` does not have the schema's columns, or ids in it repeat.
            ImportError: The extra `[cluster]` is not installed.
            OSError: The storage cannot be written, as a full disk.
            RecallError: The index finds too few of the nearest examples.
            ValueError: A vector is not finite, or a setting is wrong.
        """
        location = Location.of(storage)
        version = write_index(
            location,
            dataset,
            encoder,
            settings=settings or IndexSettings(),
            vector_dtype=np.dtype(vector_dtype),
            min_recall=min_recall,
        )
        return cls.from_pretrained(location, encoder=encoder, version=version, verify=False)

    @classmethod
    def from_pretrained(
        cls,
        storage: str | Path | Location,
        *,
        encoder: Encoder,
        version: int | None = None,
        verify: bool = True,
        token: str | None = None,
    ) -> LanceIndex:
        """Opens a finished version where it is.

        Args:
            storage: Folder, `lance://FOLDER`, or an address such as `s3://bucket/index.lance` or `hf://datasets/org/name/index.lance`.
            encoder: Encoder of the queries, which must be the one that encoded the examples.
            version: Number of the version; by default the one that was finished last.
            verify: Whether to compare the encoder with the one that was indexed with; a caller who did may leave it out.
            token: Access token for the Hub; by default the one that is stored.

        Raises:
            FileNotFoundError: There is no data set, no finished version, or not that one any more.
            ImportError: The extra `[cluster]` is not installed.
            IndexMismatchError: The encoder is another one, or the version is malformed.
        """
        location = Location.of(storage, token=token)
        dataset = _opened(location, version)
        config = read_config(dataset.schema.metadata or {}, location.uri, int(dataset.version))
        _check_schema(dataset, config, location.uri)
        index = cls(dataset, location, encoder, config)
        if len(index) != config["num_examples"]:
            raise IndexMismatchError(
                f"Expected {config['num_examples']:,} rows in version {index.version} of {location.uri}, found {len(index):,}: rows were added "
                "or deleted since. Open the version that the build made, or build the index again."
            )
        if verify:
            check_encoder(encoder, config, location.uri)
        return index

    # ---- searching and reading -------------------------------------------------------------------------------------

    def search(self, vectors: np.ndarray, k: int, *, where: str | None = None) -> Hits:
        """The `k` nearest examples of each vector.

        Args:
            vectors: Array `[n, d]` from the index's encoder.
            k: Number of examples; with more than there are, all of them and then -1 are given.
            where: SQL condition for the examples that may be hits, which is applied before the search: `"task NOT IN ('glue')"`.

        Returns:
            [`Hits`] `[n, k]`. Distances are squared L2, or the inner product with its sign changed: they fall with relevance.

        Raises:
            IndexMismatchError: The encoder reads otherwise since.
            ValueError: The vectors are of another dimension, not finite or too large for the stored type, or the condition is none.
        """
        check_reading(self.encoder, self.config)
        dimension = self.config["dimension"]
        vectors = checked_queries(vectors, k, dimension=dimension, num_vectors=len(self), encoder=self.encoder)
        # Lance reads queries in the type of the column: what is too large for that would be infinitely far from every example.
        largest = np.finfo(self.config["vector_dtype"]).max
        if (np.abs(vectors) > largest).any():
            raise ValueError(
                f"Expected vectors that {self.config['vector_dtype']} can hold, as the index stores them, found {np.abs(vectors).max():.3g} in "
                f"that of query {int(np.abs(vectors).max(axis=1).argmax())}. Build the index again with vectors in float32."
            )
        metric, most = self.config["metric"], min(k, len(self))
        hits = nearest_rows(self._lance, self._addresses, vectors, most, metric=metric, depth=self.depth, where=where)
        return hits.filled_up(k)

    def rows(self, positions: np.ndarray, columns: list[str] | None = None) -> Dataset:
        """The examples at these positions in their order, as a `Dataset` in memory.

        Args:
            positions: Positions of examples, some of which may repeat.
            columns: Columns to read; those of the schema by default.

        Raises:
            IndexError: There is no such position.
        """
        names = columns or [name for name in COLUMNS if name in self._lance.schema.names]
        return Dataset(read_rows(self._lance, self._checked(positions), names).replace_schema_metadata(None))

    def vectors(self, positions: np.ndarray) -> np.ndarray:
        """The vectors `[n, d]` at these positions in their order, as they are stored.

        Raises:
            IndexError: There is no such position.
        """
        return read_vectors(self._lance, self._checked(positions))

    def _checked(self, positions: np.ndarray) -> np.ndarray:
        positions = np.asarray(positions, dtype=np.int64)
        if ((positions < 0) | (positions >= len(self))).any():
            raise IndexError(f"Expected positions from 0 to {len(self) - 1:,}, found others.")
        return positions

    def batches(self, columns: Sequence[str], size: int) -> Iterator[dict[str, list[Any]]]:
        """Columns of all examples in their order, at most `size` examples at a time; Lance reads a little ahead."""
        for batch in scanned(self._lance, columns=[*columns], batch_size=size):
            yield batch.to_pydict()

    def positions(self, where: str) -> Iterator[np.ndarray]:
        """The positions of the examples for which a SQL condition holds, in their order, some at a time."""
        for batch in scanned(self._lance, columns=[], filter=where, with_row_id=True):
            yield self._addresses.positions(batch["_rowid"].to_numpy())

    def count(self, where: str) -> int:
        """The number of examples for which a SQL condition holds."""
        return int(self._lance.count_rows(where))

    def tasks(self, where: str | None = None) -> set[str]:
        """The tasks of the examples for which a SQL condition holds; all examples by default."""
        query = "SELECT DISTINCT task FROM dataset" + (f" WHERE {where}" if where else "")
        batches = self._lance.sql(query).build().to_batch_records()
        return {task for batch in batches for task in batch["task"].to_pylist()}


def in_memory(index: UpstreamIndex | LanceIndex) -> UpstreamIndex:
    """An index whose examples are a `Dataset`, for what looks at all of them.

    Raises:
        TypeError: They are in a Lance data set.
    """
    return index.dataset if isinstance(index, LanceIndex) else index


def _opened(location: Location, version: int | None) -> Any:
    """A version as Lance opens it, the tagged one by default."""
    lance, options = load_lance(), location.options
    try:
        latest = lance.dataset(location.uri, storage_options=options)
    except ValueError as error:
        if "not found" not in str(error).lower():
            raise
        raise FileNotFoundError(
            f"Expected a Lance data set at {location.uri}, found none. Build one with `LanceIndex.build` or `recross index --engine ray`."
        ) from error
    if version is None:
        tags = latest.tags.list()
        if TAG not in tags:
            raise FileNotFoundError(
                f"Expected a finished index at {location.uri}, found version {latest.version} and no tag {TAG!r}. A build is going on, was "
                "interrupted or refused: run it again to finish it."
            )
        version = int(tags[TAG]["version"])
    try:
        return lance.dataset(location.uri, version=version, storage_options=options)
    except ValueError as error:
        there = ", ".join(str(found["version"]) for found in latest.versions())
        raise FileNotFoundError(
            f"Expected version {version} of {location.uri}, found {there}: it was cleaned up, or is on another machine. Open one of these, or "
            "build the index again."
        ) from error


def _check_schema(dataset: Any, config: dict[str, Any], where: str) -> None:
    """Refuses columns that hold something else: examples are read as they stand there."""
    plain = dataset.schema.remove_metadata()
    columns = pa.schema([field for field in plain if field.name != VECTOR])
    expected = stored_schema(columns, config["dimension"], config["vector_dtype"])
    if any(field.name not in plain.names or plain.field(field.name).type != field.type for field in expected):
        raise IndexMismatchError(
            f"Expected the columns {', '.join(f'{field.name} ({field.type})' for field in expected)} in {where}, found "
            f"{', '.join(f'{field.name} ({field.type})' for field in plain)}. Build the index again."
        )
