"""Mined query sets: each is a row in a parquet file of its own."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, List, Value
from datasets.table import InMemoryTable

logger = logging.getLogger(__name__)


SETTINGS_FILE, SETS_FOLDER = "supervision.json", "query_sets"

CANDIDATE_FEATURES = {
    "id": Value("string"),
    "task": Value("string"),
    "input": Value("string"),
    "answer": Value("string"),
    "rank": Value("int64"),
    "utility": Value("float64"),
    "utilities": List(Value("float64")),
}
SET_FEATURES = Features(
    {
        "set": Value("int64"),
        "task": Value("string"),
        "queries": List(Value("string")),
        "query_ids": List(Value("string")),
        "held_out_ids": List(Value("string")),
        "base_loss": Value("float64"),
        "candidates": List(CANDIDATE_FEATURES),
        "diverged_groups": Value("int64"),
        "skipped": Value("string"),
    }
)
"""Columns of a mined query set. A candidate's `utilities` are those of each round (NaN: diverged), its `utility` is their mean; its `rank`
is that in the order in which candidates were chosen, the retriever's or an earlier reranker's; `skipped` says why a set has no
candidates, else it is empty."""


def load_query_sets(output_dir: str | Path) -> Dataset:
    """Loads the query sets that were mined into a folder, in the order of their numbers.

    Args:
        output_dir: Folder that [`mine_supervision`] wrote.

    Raises:
        FileNotFoundError: There are none.
    """
    folder = Path(output_dir)
    numbers = sorted(int(path.stem) for path in (folder / SETS_FOLDER).glob("[0-9]*.parquet"))
    tables = [table for number in numbers if (table := read_set(folder, number)) is not None]
    if not tables:
        raise FileNotFoundError(f"Expected mined query sets in {folder / SETS_FOLDER}, found none. Mine some first.")
    schema = SET_FEATURES.arrow_schema
    return Dataset(InMemoryTable(pa.concat_tables(table.cast(schema) for table in tables)))


def path_of(folder: Path, number: int) -> Path:
    """File of a query set."""
    return folder / SETS_FOLDER / f"{number:06d}.parquet"


def read_set(folder: Path, number: int) -> pa.Table | None:
    """Reads a query set; None where it is missing or its file is damaged."""
    path = path_of(folder, number)
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError):
        table = None
    if table is None or table.column_names != list(SET_FEATURES) or len(table) != 1:
        logger.warning("%s is damaged: this query set is mined again.", path)
        return None
    return table
