"""Parquet files of the prepared examples of one split."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .rendering import SCHEMA

_ROWS_A_WRITE = 10_000


class ExampleShards:
    """Writes parquet files of one split; when closed, they are named as the Hub names them: `train-00000-of-00003.parquet`.

    Args:
        folder: Folder of the files, which must exist.
        split: Split that the files are named after.
        shard_size: Examples a file.

    Attributes:
        num_rows: Number of examples so far.
    """

    def __init__(self, folder: Path, split: str, shard_size: int) -> None:
        self.folder, self.split, self.shard_size = folder, split, shard_size
        self.num_rows = 0
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._num_free = 0  # rows that the open file still takes

    def write(self, table: pa.Table) -> None:
        """Takes examples, and writes them once they are worth a row group."""
        self.num_rows += len(table)
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= _ROWS_A_WRITE:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting) if self._waiting else SCHEMA.empty_table()
        self._waiting = []
        while len(table):
            if self._writer is None:
                self._paths.append(self.folder / f"{self.split}-{len(self._paths)}.parquet")
                self._writer = pq.ParquetWriter(self._paths[-1], SCHEMA, compression="zstd")
                self._num_free = self.shard_size
            first, table = table[: self._num_free], table[self._num_free :]
            self._writer.write_table(first)
            self._num_free -= len(first)
            if not self._num_free:
                self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Writes the last examples, and gives the files their names."""
        self._flush()
        self._end()
        for number, path in enumerate(self._paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet")
