"""Rows of a task as a stream of batches."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa

BATCH_ROWS = 1024


# ---- rows ------------------------------------------------------------------------------------------------------------


UNREADABLE = (csv.Error, UnicodeError, pa.ArrowException)
"""What files raise that are not what their names say."""


class Rows:
    """The rows of a task, in order, a batch at a time.

    Attributes:
        num_rows: how many there are.
        column_names: of all rows; empty where they may differ, as in JSON.
        version: what tells another state of the same source: commits, or a hash of files; None where it is not known.
        license: of the data, where it is known.
        notes: what a reader of the result should know of the source.
    """

    def __init__(
        self,
        num_rows: int,
        column_names: Sequence[str],
        batches: Callable[[], Iterator[RowBatch]],
        *,
        version: str | None,
        license: str | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.num_rows = num_rows
        self.column_names = tuple(column_names)
        self.version = version
        self.license = license
        self.notes = list(notes)
        self._batches = batches

    def batches(self) -> Iterator[RowBatch]:
        """All rows from the first, at most 1,024 a batch."""
        return self._batches()


class RowBatch:
    """Some rows; those that are asked for become Python values.

    Attributes:
        first: the number of the first, from 0 in each configuration.
    """

    def __init__(self, rows: pa.Table | list[dict[str, Any]], first: int, **constants: Any) -> None:
        self.first = first
        self._rows = rows
        self._constants = constants

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> list[Any]:
        """The values of one column; None where a row has none."""
        if isinstance(self._rows, list):
            return [row.get(name) for row in self._rows]
        return self._rows[name].to_pylist() if name in self._rows.column_names else [None] * len(self)

    def take(self, positions: Sequence[int]) -> list[dict[str, Any]]:
        """Some rows as mappings."""
        if isinstance(self._rows, list):
            rows = [self._rows[position] for position in positions]
        else:
            rows = self._rows.take(pa.array(positions, type=pa.int64())).to_pylist()
        return [self._constants | row for row in rows] if self._constants else rows


def batched(records: Iterator[dict[str, Any]]) -> Iterator[RowBatch]:
    first = 0
    while batch := list(itertools.islice(records, BATCH_ROWS)):
        yield RowBatch(batch, first)
        first += len(batch)
