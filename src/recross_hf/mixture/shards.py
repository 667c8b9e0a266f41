"""Prepared examples as parquet files of one split."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .rendering import SCHEMA

_ROWS_A_WRITE = 10_000


class ExampleShards:
    """Parquet files of one split, named as the Hub's when closed: `train-00000-of-00003.parquet`."""

    def __init__(self, folder: Path, split: str, shard_size: int) -> None:
        self.folder, self.split, self.shard_size = folder, split, shard_size
        self.num_rows = 0
        self._paths: list[Path] = []
        self._writer: pq.ParquetWriter | None = None
        self._waiting: list[pa.Table] = []
        self._room = 0

    def write(self, table: pa.Table) -> None:
        """Keeps rows until they are worth a row group."""
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
                self._room = self.shard_size
            part, table = table[: self._room], table[self._room :]
            self._writer.write_table(part)
            self._room -= len(part)
            if not self._room:
                self._end()

    def _end(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        self._flush()
        self._end()
        for number, path in enumerate(self._paths):
            path.rename(self.folder / f"{self.split}-{number:05d}-of-{len(self._paths):05d}.parquet")
