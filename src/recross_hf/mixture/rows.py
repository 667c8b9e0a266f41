"""Rows of a task as a stream of batches, wherever they come from."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

BATCH_ROWS = 1024
"""Most rows of a batch."""

UNREADABLE = (csv.Error, UnicodeError, pa.ArrowException)
"""Errors of files whose content is not what their names say."""


@dataclass(frozen=True)
class Rows:
    """The rows of a task, in order, a batch at a time.

    Attributes:
        num_rows: Number of rows.
        column_names: Columns that all rows have; empty where rows may differ, as in JSON.
        batches: Function that streams all rows from the first, in batches of at most 1,024.
        version: Version of the source, as commits or a hash of files; None where it is not known.
        license: Licence of the data, where it is known.
        notes: Sentences about the source for a reader of the result.
        columns: Columns of rows that are examples already, by the schema's names; a column that is not here has the schema's name.
        is_padded: Whether texts of rows that are examples already have white space around them, which is no content.
    """

    num_rows: int
    column_names: tuple[str, ...]
    batches: Callable[[], Iterator[RowBatch]]
    version: str | None
    license: str | None = None
    notes: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    is_padded: bool = False


class RowBatch:
    """Some rows; those that are asked for become Python values.

    Attributes:
        first: Number of the first row; each configuration counts from 0.
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
        """The rows at these positions, as mappings."""
        if isinstance(self._rows, list):
            rows = [self._rows[position] for position in positions]
        else:
            rows = self._rows.take(pa.array(positions, type=pa.int64())).to_pylist()
        return [self._constants | row for row in rows] if self._constants else rows


def batched(records: Iterator[dict[str, Any]]) -> Iterator[RowBatch]:
    """Gathers records into batches."""
    first = 0
    while batch := list(itertools.islice(records, BATCH_ROWS)):
        yield RowBatch(batch, first)
        first += len(batch)
