"""Building an index on a cluster: the driver plans chunks, hands them out, and makes a version of what the workers wrote."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.hashing import digest_of
from ...core.progress import progress_bar
from ..encoder import Encoder
from ..lance.config import FORMAT_VERSION, read_config
from ..lance.layout import TAG, commit, current_version, finish, stored_schema
from ..lance.location import Location, load_lance
from ..lance.recall import LEAST_RECALL
from ..lance.vector_index import IndexSettings, described
from ..vector_shards import same_vectors
from .engine import WorkerPool, connected, create_worker, resources_for
from .filesystems import filesystem_of, names_in
from .indexing import index_on_cluster
from .journal import Journal
from .sources import Chunk, ParquetSource
from .unique_ids import check_unique_ids
from .workers import ChunkWorker, EncoderDescription

logger = logging.getLogger(__name__)


def build_cluster_index(
    train_files: str | Sequence[str],
    make_encoder: Callable[[], Encoder],
    storage: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    num_workers: int | None = None,
    address: str | None = None,
    vector_dtype: Literal["float32", "float16"] = "float32",
    settings: IndexSettings | None = None,
    min_recall: float = LEAST_RECALL,
    chunk_size: int | None = None,
    start_timeout: float = 600.0,
) -> int:
    """Encodes upstream examples on a Ray cluster and writes a Lance data set that [`LanceIndex.from_pretrained`] opens.

    ```python
    make_encoder = functools.partial(MeanPooledEncoder.from_pretrained, "bart0")
    build_cluster_index("s3://bucket/upstream/*.parquet", make_encoder, "s3://bucket/index", num_workers=8)
    index = LanceIndex.from_pretrained("s3://bucket/index", encoder=make_encoder())
    ```

    Workers read, encode and write chunks; this process holds neither examples nor vectors. The result is the same whatever the number of
    workers, and has the vectors that [`UpstreamIndex.build`] gives (to 1e-5). A build that was killed goes on when it is called again with
    the same arguments, and one that was finished is not made again. Readers see the version before until this one is finished.

    Args:
        train_files: Parquet files, folders or patterns, on a file system that all nodes share, or at `hf://datasets/org/name/...`, `s3://...`,
            `gs://...`.
        make_encoder: Loads the encoder on each worker: a function that can be imported there, or a `functools.partial` of one.
        storage: Folder that all nodes share, `lance://FOLDER`, or an address such as `s3://bucket/index`.
        columns: Columns of the files by the names of the schema, as in [`load_examples`].
        num_workers: Number of workers; by default one a GPU, or one a CPU but for one.
        address: Address of the cluster; by default `RAY_ADDRESS`, and a new one on this machine where that is not set.
        vector_dtype: Type of the vectors: "float32", or "float16" for half the disk and about three digits.
        settings: Settings of the index over the vectors.
        min_recall: Recall at 64 below which the build is refused.
        chunk_size: Rows that a worker encodes and writes at a time, which are lost where one is killed; 4,096 to 65,536 by default.
        start_timeout: Seconds that the first worker may take to come up.

    Returns:
        The number of the version, which is the one that is opened by default.

    Raises:
        BuildConflictError: Another build wrote to the storage meanwhile.
        ConnectionError: There is no cluster at the address.
        ExampleError: The examples do not have the schema's columns, or ids repeat.
        FileNotFoundError: There is no such file.
        ImportError: The extra `[cluster]` is not installed.
        IndexMismatchError: The storage holds an unfinished build of something else, a worker has another encoder, or another process builds
            the same index.
        OSError: The storage cannot be written, or nodes do not share it.
        RecallError: The index finds too few of the nearest examples.
        ValueError: A vector is not finite, or the cluster is too small.
        WorkersLostError: No worker comes up in time, or all of them died too often.
    """
    location = _writable(storage)
    load_lance()
    source, settings = ParquetSource.of(train_files, columns), settings or IndexSettings()
    chunk_size = chunk_size or source.default_chunk_size()
    chunks = source.chunks(chunk_size)
    journal = Journal(location.uri, len(chunks))
    with connected(address, num_workers) as ray:
        workers, takes = resources_for(ray, num_workers)
        read_version = current_version(location)
        start = partial(create_worker, ray, ChunkWorker, takes, source, make_encoder, location, vector_dtype)
        pool = WorkerPool(ray, start, min(workers, len(chunks)), start_timeout=start_timeout)
        try:
            encoder = pool.description()
            build = _build_identity(source, encoder, chunk_size, vector_dtype)
            # What Lance does not take is said before the encoding.
            numbers = settings.for_rows(source.num_rows, encoder.dimension)
            wanted = described(settings, numbers) | {"build": f"{digest_of(build):016x}"}
            if (finished := _finished(location, wanted, encoder, min_recall)) is not None:
                journal.open(build, encoder.probes)
                journal.close()  # it may be there where this build was killed in its last step
                return finished
            fragments = _write_chunks(pool, journal, chunks, encoder, build, location)
        finally:
            pool.close()
        journal.check_owner()
        schema = stored_schema(source.schema, encoder.dimension, np.dtype(vector_dtype))
        version = commit(location, fragments, schema, read_version=read_version)
        if source.has_ids:
            check_unique_ids(ray, location, version, source.num_rows)
        sizes = {"num_rows": source.num_rows, "num_workers": workers}
        version, indexed = index_on_cluster(ray, location, version, settings, min_recall=min_recall, **sizes)
        config = {
            "format_version": FORMAT_VERSION,
            "encoder": encoder.identity,
            "probes": encoder.probes.tolist(),
            "num_examples": source.num_rows,
            "dimension": encoder.dimension,
            "vector_dtype": vector_dtype,
            "build": wanted["build"],
            **indexed,
        }
        journal.check_owner()
        version = finish(location, version, config)
        journal.close()
    return version


def _finished(
    location: Location, wanted: Mapping[str, Any], encoder: EncoderDescription, min_recall: float
) -> int | None:
    """The version that readers see, where this build made it: what came after it may have been interrupted. None where it did not."""
    lance, options = load_lance(), location.options
    if not current_version(location):
        return None
    tag = lance.dataset(location.uri, storage_options=options).tags.list().get(TAG)
    if tag is None:
        return None
    dataset = lance.dataset(location.uri, version=int(tag["version"]), storage_options=options)
    config = read_config(dataset.schema.metadata or {}, location.uri, int(dataset.version))
    is_same = all(config.get(name) == value for name, value in wanted.items())
    if not is_same or config["recall"]["value"] < min_recall:
        return None
    if not same_vectors(np.asarray(config["probes"], dtype=np.float32), encoder.probes):
        return None
    logger.warning("Version %d in %s is what this build makes: it was finished before.", dataset.version, location.uri)
    return int(dataset.version)


def _writable(storage: str | Path) -> Location:
    location = Location.of(storage)
    if location.uri.startswith("hf://"):
        raise ValueError(
            f"Expected a folder or an object store, which many workers can write to at once, found {location.uri}. Build it there, and upload "
            "the folder: `hf upload org/name FOLDER --repo-type dataset`."
        )
    return location


def _write_chunks(
    pool: WorkerPool,
    journal: Journal,
    chunks: Sequence[Chunk],
    encoder: EncoderDescription,
    build: Mapping[str, Any],
    location: Location,
) -> list[str]:
    """The fragments of all chunks in their order, of which those that the journal lacks, or whose files are gone, are written now."""
    fragments = journal.open(build, encoder.probes)
    for number in _without_files(location, fragments):
        del fragments[number]
    if fragments:
        logger.warning(
            "Continuing the unfinished build in %s: %d of %d chunks are written.",
            journal.storage,
            len(fragments),
            len(chunks),
        )
    missing = [chunk for chunk in chunks if chunk.number not in fragments]
    total = sum(map(len, chunks))
    with progress_bar(total=total, initial=total - sum(map(len, missing)), desc="Encoding", unit="ex") as progress:
        for chunk, fragment in pool.written(missing, encoder):
            journal.write(chunk.number, fragment)
            fragments[chunk.number] = fragment
            progress.update(len(chunk))
    if gone := _without_files(location, fragments):
        raise FileNotFoundError(
            f"Expected the files of {len(chunks)} chunks in {location.uri}, found those of {len(chunks) - len(gone)}: some workers wrote to a "
            "folder of their own node. Choose a storage that all nodes share, and run the build again."
        )
    return [fragments[chunk.number] for chunk in chunks]


def _without_files(location: Location, fragments: Mapping[int, str]) -> list[int]:
    """The numbers of chunks whose files this process does not see."""
    lance = load_lance()
    filesystem, path = filesystem_of(location.uri)
    seen = set(names_in(filesystem, f"{path.rstrip('/')}/data"))
    files = {number: lance.FragmentMetadata.from_json(text).files for number, text in fragments.items()}
    return [number for number, found in files.items() if not {file.path for file in found} <= seen]


def _build_identity(
    source: ParquetSource, encoder: EncoderDescription, chunk_size: int, vector_dtype: str
) -> dict[str, Any]:
    """All that the chunks of a build depend on, as JSON values."""
    return {
        **source.identity(),
        "encoder": encoder.identity,
        "chunk_size": chunk_size,
        "vector_dtype": vector_dtype,
    }
