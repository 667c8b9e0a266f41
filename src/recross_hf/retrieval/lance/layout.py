"""What a Lance data set of upstream examples holds, and how it comes into being: fragments first, one version of all of them, the
configuration and the tag last.

Many processes write fragments, which no version names yet; one process commits them. Readers open the tagged version: nothing
half-built is ever seen, and a version that is read stays as it is while the next one is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike

from ...data.schema import COLUMNS, ExampleError
from ..vector_shards import as_stored
from .location import Location, load_lance

VECTOR = "vector"
"""Column of the vectors, fixed-size lists of float32 or float16."""
TAG = "recross_hf"
"""Tag of the version that is opened where none is named, and key of the configuration in a version's metadata."""
_BYTES_AHEAD = 64 << 20
REQUIRED = ("id", "task", "input", "references")


class BuildConflictError(RuntimeError):
    """Another build wrote to the same place meanwhile; the message says which versions, and what to do."""


def stored_schema(columns: pa.Schema, dimension: int, dtype: DTypeLike = np.float32) -> pa.Schema:
    """The columns of the data set: those of the schema that the examples have, in one type each, and the vectors.

    Args:
        columns: Arrow schema of the examples.
        dimension: Dimension of the vectors.
        dtype: Type of the vectors, `np.float32`, or `np.float16` for half the disk and about three digits.

    Raises:
        ExampleError: A column is missing.
        ValueError: The type is another one.
    """
    if np.dtype(dtype) not in (np.float32, np.float16):
        raise ValueError(f"Expected vectors in float32 or float16, found {np.dtype(dtype)}. Lance indexes no others.")
    missing = [name for name in REQUIRED if name not in columns.names]
    if missing:
        raise ExampleError(
            f"Expected the columns {', '.join(REQUIRED)}, found {', '.join(columns.names) or 'none'}. Read the data with `load_examples`."
        )
    fields = [field for field in COLUMNS.arrow_schema if field.name in columns.names]
    return pa.schema([*fields, pa.field(VECTOR, pa.list_(pa.from_numpy_dtype(np.dtype(dtype)), dimension))])


def to_table(examples: pa.Table, vectors: np.ndarray, schema: pa.Schema) -> pa.Table:
    """Examples beside their vectors, as they are stored.

    Args:
        examples: Rows with the columns that [`stored_schema`] was given.
        vectors: Array `[len(examples), d]`.
        schema: What [`stored_schema`] gave.

    Raises:
        ExampleError: The columns are others, or of types that are no texts.
        ValueError: A vector is not finite, too large for the type, or of another dimension.
    """
    kind = schema.field(VECTOR).type
    if vectors.shape != (len(examples), kind.list_size):
        raise ValueError(
            f"Expected vectors [{len(examples)}, {kind.list_size}], found {list(vectors.shape)}. Encode with one encoder throughout."
        )
    stored = as_stored(vectors, np.dtype(kind.value_type.to_pandas_dtype()), lambda row: examples["id"][row].as_py())
    names = [name for name in schema.names if name != VECTOR]
    try:
        columns = examples.select(names).cast(pa.schema([schema.field(name) for name in names])).columns
    except (KeyError, pa.ArrowException) as error:
        raise ExampleError(
            f"Expected the columns {', '.join(f'{field.name} ({field.type})' for field in schema if field.name != VECTOR)}, found "
            f"{', '.join(f'{field.name} ({field.type})' for field in examples.schema)}. Give all files the same columns."
        ) from error
    flat = pa.array(np.ascontiguousarray(stored).reshape(-1))
    return pa.Table.from_arrays([*columns, pa.FixedSizeListArray.from_arrays(flat, kind.list_size)], schema=schema)


def write_fragment(location: Location, table: pa.Table) -> str:
    """Writes one fragment, which no version names yet; any process may, in any order.

    Args:
        location: Where the data set is, or will be.
        table: What [`to_table`] gave.

    Returns:
        The fragment as JSON, for [`commit`].

    Raises:
        OSError: It could not be written, as on a full disk.
    """
    mode = "overwrite" if current_version(location) else "create"
    with written(location, f"{len(table):,} examples"):
        # Without both limits, Lance would cut a table into fragments as it sees fit.
        (fragment,) = load_lance().fragment.write_fragments(
            table,
            location.uri,
            mode=mode,
            max_rows_per_file=max(len(table), 1),
            max_bytes_per_file=1 << 60,
            storage_options=location.options,
        )
    return json.dumps(fragment.to_json())


def current_version(location: Location) -> int:
    """The number of the latest version, finished or not; 0 where there is no data set."""
    lance = load_lance()
    try:
        return int(lance.dataset(location.uri, storage_options=location.options).version)
    except ValueError as error:
        if "not found" in str(error).lower():
            return 0
        raise


def commit(location: Location, fragments: Iterable[str], schema: pa.Schema, *, read_version: int) -> int:
    """Makes fragments the rows of a new version, in their order, in place of all that was there.

    Args:
        location: Where the data set is.
        fragments: What [`write_fragment`] gave.
        schema: What [`stored_schema`] gave.
        read_version: What [`current_version`] was when the build began.

    Returns:
        The number of the new version, which is not tagged yet.

    Raises:
        BuildConflictError: Another build committed since.
        OSError: It could not be written.
    """
    lance = load_lance()
    rows = [lance.FragmentMetadata.from_json(fragment) for fragment in fragments]
    check_unchanged(location, read_version)
    try:
        with written(location, "a version"):
            # With no retries Lance refuses to overwrite what was committed since `read_version`.
            dataset = lance.LanceDataset.commit(
                location.uri,
                lance.LanceOperation.Overwrite(schema, rows),
                read_version=read_version or None,
                max_retries=0,
                storage_options=location.options,
            )
    except OSError:
        check_unchanged(location, read_version)
        raise
    return int(dataset.version)


def finish(location: Location, version: int, config: Mapping[str, Any]) -> int:
    """Stores the configuration with a version and tags that as the one to open: the last step of a build.

    It has another tag for itself (`recross_hf-4`), which stays: Lance cleans up no version that has one.

    Args:
        location: Where the data set is.
        version: The version with its index, as the build made it.
        config: The content of `index.json`, as JSON values.

    Returns:
        The number of the tagged version.

    Raises:
        BuildConflictError: Another build committed since.
        OSError: It could not be written.
    """
    check_unchanged(location, version)
    dataset = load_lance().dataset(location.uri, version=version, storage_options=location.options)
    try:
        with written(location, "the configuration"):
            dataset.update_schema_metadata({TAG: json.dumps(dict(config), sort_keys=True)})
            # Lance puts a change of metadata on top of what was committed meanwhile, where it can.
            check_unchanged(location, version + 1)
            # Pipelines name a version by its number: one that has a tag of its own stays when old ones are cleaned up.
            for name in (f"{TAG}-{dataset.version}", TAG):
                tag = dataset.tags.update if name in dataset.tags.list() else dataset.tags.create
                tag(name, int(dataset.version))
    except OSError:
        check_unchanged(location, version + 1)
        raise
    return int(dataset.version)


def check_unchanged(location: Location, version: int) -> None:
    """Makes sure that a version is still the latest.

    Raises:
        BuildConflictError: Another build committed since.
    """
    latest = current_version(location)
    if latest != version:
        raise BuildConflictError(
            f"Expected version {version} of {location.uri} to be the latest while this build writes to it, found version {latest}: another "
            "build wrote there meanwhile. Nothing of this build is visible: run it again once the other is done, or choose another place."
        )


@contextmanager
def written(location: Location, what: str) -> Iterator[None]:
    """Errors of Lance (a `CommitConflictError` is an `OSError`) as one that says what was written."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"Expected to write {what} to {location.uri}, found: {error} Make sure that there is room and that you may write there, then "
            "run the build again; nothing half-built is visible."
        ) from error


def scanned(dataset: Any, **arguments: Any) -> Iterator[pa.RecordBatch]:
    """Reads a version as a whole, some rows at a time, and little ahead: by default Lance reads 2 GB ahead.

    Args:
        dataset: The version, as Lance opens it.
        arguments: Arguments of `dataset.scanner`.
    """
    return iter(
        dataset.scanner(**arguments, io_buffer_size=_BYTES_AHEAD, batch_readahead=2, fragment_readahead=1).to_batches()
    )


def float32_array(vectors: pa.FixedSizeListArray) -> np.ndarray:
    """Stored vectors as an array `[n, d]` of float32."""
    flat: np.ndarray = vectors.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(len(vectors), vectors.type.list_size)
