"""Upstream examples in parquet files, here or in an object store, as chunks of rows that workers read for themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from glob import has_magic
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable
from fsspec.implementations.arrow import ArrowFSWrapper

from ...core.hashing import digest_of
from ...data.conform import conform
from ...data.files import files_of
from ...data.schema import COLUMNS, MESSAGES, ExampleError
from ...data.turns import PROMPT
from ..vector_shards import SHARD_SIZE
from .filesystems import HUB, filesystem_of

_MOST_CHUNKS, _MOST_SHARDS_A_CHUNK = 1024, 16
_FOOTERS_AT_A_TIME = 16


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` of a file.

    Attributes:
        address: Path or address of the file.
        start: First row.
        stop: Row after the last one.
    """

    address: str
    start: int
    stop: int


@dataclass(frozen=True)
class Chunk:
    """Rows in a row, of one file or of several, that one worker encodes and writes at a time.

    Attributes:
        number: Number of the chunk, from 0 on.
        first_row: Number of its first row among all rows.
        pieces: The rows, file by file.
    """

    number: int
    first_row: int
    pieces: tuple[Piece, ...]

    def __len__(self) -> int:
        return sum(piece.stop - piece.start for piece in self.pieces)


@dataclass(frozen=True)
class ParquetSource:
    """Parquet files of examples, of which this process has read the footers alone.

    Attributes:
        files: Addresses of the files, in order, with the numbers of their rows and of their bytes.
        columns: Columns of the files by the names of the schema, as in [`load_examples`].
        names: Columns of the schema that the examples have.
        has_ids: Whether the ids are those of the files, and not made of the task and the row number.
        written: What each file's footer says of its columns, as a digest, and when it was written, where its file system knows.
    """

    files: tuple[tuple[str, int, int], ...]
    columns: Mapping[str, str]
    names: tuple[str, ...]
    has_ids: bool
    written: tuple[tuple[str, int | None], ...] = ()

    @classmethod
    def of(cls, train_files: str | Sequence[str], columns: Mapping[str, str] | None = None) -> ParquetSource:
        """Reads the footers of files.

        Args:
            train_files: Files, folders or patterns, of this machine or at `hf://datasets/org/name/...`, `s3://...`.
            columns: Columns of the files by the names of the schema.

        Raises:
            ExampleError: A file is no parquet, has other columns than the first one, or lacks a column; or there are no rows.
            FileNotFoundError: There is no such file.
        """
        patterns = [train_files] if isinstance(train_files, str) else list(train_files)
        addresses = list(dict.fromkeys(address for pattern in patterns for address in _addresses(pattern)))
        with ThreadPoolExecutor(_FOOTERS_AT_A_TIME) as pool:
            footers = list(pool.map(_footer, addresses))
        schema = footers[0][2]
        for address, (_, _, other, _) in zip(addresses, footers, strict=True):
            if set(other.names) != set(schema.names):
                raise ExampleError(
                    f"Expected the same columns in every file, found {sorted(schema.names)} in {addresses[0]} and {sorted(other.names)} in "
                    f"{address}. Index them one by one, or write them with the same columns."
                )
        files = tuple(
            (address, rows, size) for address, (rows, size, _, _) in zip(addresses, footers, strict=True) if rows
        )
        if not files:
            raise ExampleError(f"Expected at least one example, found none in {', '.join(patterns)}.")
        mapping = dict(columns or {})
        # One row tells whether the columns are those that were meant, before any worker starts.
        first = _conformed(Piece(files[0][0], 0, 1), mapping, 0, files[0][1])
        # Turns may be missing from the first row and be there later on.
        is_prompted = PROMPT in schema.names and mapping.get("input", "input") not in schema.names
        has_turns = is_prompted or mapping.get(MESSAGES, MESSAGES) in schema.names
        names = [name for name in COLUMNS if name in first.column_names or (name == MESSAGES and has_turns)]
        written = tuple(written for rows, _, _, written in footers if rows)
        return cls(files, mapping, tuple(names), mapping.get("id", "id") in schema.names, written)

    @property
    def num_rows(self) -> int:
        """Number of rows of all files."""
        return sum(rows for _, rows, _ in self.files)

    @property
    def schema(self) -> pa.Schema:
        """The columns of the examples and their types."""
        return pa.schema([COLUMNS.arrow_schema.field(name) for name in self.names])

    def identity(self) -> dict[str, Any]:
        """What tells these examples from others, as JSON values."""
        return {
            "num_examples": self.num_rows,
            "num_files": len(self.files),
            # A file whose labels were mended may have as many rows and bytes as before.
            "files": f"{digest_of((self.files, self.written)):016x}",
            "columns": dict(self.columns),
        }

    def default_chunk_size(self) -> int:
        """Rows a chunk, a multiple of the rows that are encoded at a time: the number of rows decides, and no number of workers."""
        shards = -(-self.num_rows // (SHARD_SIZE * _MOST_CHUNKS))
        return SHARD_SIZE * min(max(shards, 1), _MOST_SHARDS_A_CHUNK)

    def chunks(self, chunk_size: int) -> list[Chunk]:
        """All rows in their order, `chunk_size` at a time; the last chunk may have fewer."""
        pieces: list[list[Piece]] = []
        room = 0
        for address, rows, _ in self.files:
            start = 0
            while start < rows:
                if not room:
                    pieces.append([])
                    room = chunk_size
                stop = min(rows, start + room)
                pieces[-1].append(Piece(address, start, stop))
                room -= stop - start
                start = stop
        return [Chunk(number, number * chunk_size, tuple(found)) for number, found in enumerate(pieces)]

    def read(self, chunk: Chunk) -> pa.Table:
        """The examples of a chunk, with the columns `names`.

        Raises:
            ExampleError: A row is none of an example; the message names the file and the row.
            OSError: A file cannot be read, or has other rows than when the chunks were planned.
        """
        tables, first_row = [], chunk.first_row
        rows_of = {address: rows for address, rows, _ in self.files}
        for piece in chunk.pieces:
            table = _conformed(piece, self.columns, first_row, rows_of[piece.address])
            first_row += len(table)
            for name in set(self.names) - set(table.column_names):
                table = table.append_column(name, pa.nulls(len(table), COLUMNS.arrow_schema.field(name).type))
            tables.append(table.select(list(self.names)))
        return pa.concat_tables(tables).replace_schema_metadata(None)


def _addresses(pattern: str) -> list[str]:
    """The parquet files that a file, folder or pattern stands for."""
    if "://" not in pattern:
        paths = [str(path.resolve()) for path in files_of(pattern)]
        if wrong := [path for path in paths if not path.lower().endswith(".parquet")]:
            raise ExampleError(
                f"Expected parquet files, of which each worker reads a part, found {wrong[0]}. Write the data as parquet, e.g. with "
                "`load_examples(...).to_parquet(path)`, or leave `--engine ray` out."
            )
        return paths
    filesystem, path = filesystem_of(pattern)
    within = ArrowFSWrapper(filesystem)
    try:
        names = within.glob(path) if has_magic(path) else within.find(path)
    except OSError as error:
        raise FileNotFoundError(f"No file at {pattern}: {error}. Check the address and the access to it.") from error
    scheme = pattern.partition("://")[0]
    names = [name for name in sorted(names) if name.lower().endswith(".parquet")]
    if scheme != HUB:
        # pyarrow reads addresses as URIs, which may have options: s3://bucket/upstream?endpoint_override=...
        _, mark, options = pattern.partition("?")
        names = [f"{quote(name)}{mark}{options}" for name in names]
    addresses = [f"{scheme}://{name}" for name in names]
    if not addresses:
        raise FileNotFoundError(f"No parquet file at {pattern}. Expected a file, a folder or a pattern.")
    return addresses


def _footer(address: str) -> tuple[int, int, pa.Schema, tuple[str, int | None]]:
    filesystem, path = filesystem_of(address)
    with _opened(address) as file:
        info, footer = filesystem.get_file_info(path), pa.BufferOutputStream()
        file.metadata.write_metadata_file(footer)  # where each column is, how long, and its smallest and largest value
        written = sha256(footer.getvalue()).hexdigest(), info.mtime_ns
        return file.metadata.num_rows, info.size, file.schema_arrow, written


def _opened(address: str) -> pq.ParquetFile:
    filesystem, path = filesystem_of(address)
    try:
        return pq.ParquetFile(filesystem.open_input_file(path), pre_buffer="://" in address)
    except pa.ArrowInvalid as error:
        raise ExampleError(
            f"Expected parquet in {address}, found a malformed file: {error}. Download or write the file again."
        ) from error


def _conformed(piece: Piece, columns: Mapping[str, str], first_row: int, num_rows: int) -> pa.Table:
    try:
        with _opened(piece.address) as file:
            if file.metadata.num_rows != num_rows:
                raise OSError(f"{file.metadata.num_rows:,} rows in it, and {num_rows:,} when the chunks were planned")
            raw = pa.Table.from_batches(_batches(file, piece), file.schema_arrow)
    except (pa.ArrowException, OSError) as error:
        raise OSError(
            f"Expected to read the rows {piece.start} to {piece.stop} of {piece.address}, found: {error}. Check the file, and the access to it "
            "from every node, and run the build again."
        ) from error
    try:
        # Metadata of other libraries may give columns types that Arrow does not know.
        dataset = Dataset(InMemoryTable(raw.replace_schema_metadata(None)), fingerprint=f"{first_row}")
        examples = conform([dataset], columns, "unknown", labelled=True, drop_invalid=False, first_row=first_row)
    except ExampleError as error:
        raise ExampleError(f"{piece.address}, where row 0 is row {piece.start} of the file: {error}") from error
    return examples.with_format("arrow")[:]


def _batches(file: pq.ParquetFile, piece: Piece) -> Iterator[pa.RecordBatch]:
    """The rows of a piece; no other row group is read."""
    groups, first, skipped = [], 0, 0
    for group in range(file.metadata.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if first + rows <= piece.start:
            skipped += rows
        elif first < piece.stop:
            groups.append(group)
        first += rows
    at = skipped
    for batch in file.iter_batches(SHARD_SIZE, row_groups=groups):
        start, stop = max(piece.start - at, 0), min(piece.stop - at, len(batch))
        if start < stop:
            yield batch.slice(start, stop - start)
        at += len(batch)
