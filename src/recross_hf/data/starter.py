"""The starter: a small pipeline and a few unseen tasks that come with the package."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from ..core.files import read_parquet

STARTER_DIRECTORY = Path(__file__).parents[1] / "starter_data"
NUM_QUERY_SETS = 5


def starter_tasks() -> list[str]:
    """Names of the unseen tasks of the starter."""
    return sorted(path.name for path in (STARTER_DIRECTORY / "tasks").iterdir() if path.is_dir())


def load_starter_task(task: str, query_set: int = 0) -> tuple[Dataset, Dataset]:
    """Loads a query set (16 unlabelled inputs) and the labelled test set of an unseen task of the starter.

    Args:
        task: one of [`starter_tasks`].
        query_set: 0 to 4.

    Raises:
        ValueError: there is no such task or query set.
    """
    if task not in starter_tasks():
        raise ValueError(f"Expected a task of the starter ({', '.join(starter_tasks())}), found {task!r}.")
    if query_set not in range(NUM_QUERY_SETS):
        raise ValueError(f"Expected a query set from 0 to {NUM_QUERY_SETS - 1}, found {query_set}.")
    folder = STARTER_DIRECTORY / "tasks" / task
    queries = read_parquet(folder / f"query-{query_set}.parquet")
    return queries, read_parquet(folder / "test.parquet")
