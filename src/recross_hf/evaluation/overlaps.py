"""Overlaps of query sets, test sets and upstream data, and their handling."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ..mixture.decontamination import Decontaminator
from ..retrieval.upstream_rows import RowsInMemory, UpstreamRows
from .tasks import TargetTask

HANDLINGS = ("refuse", "report", "drop")
"""Ways to handle overlaps."""

_ROWS_AT_ONCE = 10_000
_SHOWN = 3


class OverlapError(ValueError):
    """Test examples are among the queries or upstream; the message says which, and what to do."""


@dataclass(frozen=True)
class Overlaps:
    """Examples that a target task shares, by source example or by all words of an input.

    Args:
        test_in_queries: Rows of the test set that a query set holds.
        upstream_in_test: Ids of upstream examples that are in the test set, each with the kind of overlap and the id of the test
            example.
        is_upstream: Whether upstream data has a task of this name, which is never retrieved from.
    """

    test_in_queries: tuple[int, ...] = ()
    upstream_in_test: Mapping[str, str] = field(default_factory=dict)
    is_upstream: bool = False

    def to_json(self, handling: str) -> dict[str, Any]:
        """Numbers and some examples as JSON values, for the details of a cell."""
        return {
            "test_in_queries": len(self.test_in_queries),
            "upstream_in_test": len(self.upstream_in_test),
            "upstream_examples": dict(list(self.upstream_in_test.items())[:_SHOWN]),
            "target_task_excluded_from_upstream": self.is_upstream,
            "handling": handling,
        }


def find_overlaps(tasks: Sequence[TargetTask], upstreams: Iterable[Dataset | UpstreamRows]) -> dict[str, Overlaps]:
    """The overlaps of each target task's test set with its query sets and with upstream data, by task.

    Upstream examples of a task of the same name do not count, for they are never retrieved.

    Args:
        tasks: Target tasks.
        upstreams: What examples are retrieved from, which is read in pieces.
    """
    in_test: dict[str, dict[str, str]] = {task.name: {} for task in tasks}
    upstream_tasks: set[str] = set()
    targets = {task.name: _texts(task.name, [task.test]) for task in tasks}
    together = Decontaminator.of([_named(task.name, task.test) for task in tasks])
    for upstream in upstreams:
        rows_of_all = upstream if isinstance(upstream, UpstreamRows) else RowsInMemory(upstream)
        for batch in rows_of_all.batches(["id", "task", "input"], _ROWS_AT_ONCE):
            upstream_tasks.update(batch["task"])
            hits = together.find(batch["id"], batch["input"], ngrams=False)
            rows = [row for row, overlap in enumerate(hits) if overlap is not None]
            if not rows:
                continue
            # Several target tasks may hold the example, so that each is asked.
            ids, inputs = ([batch[name][row] for row in rows] for name in ("id", "input"))
            for name, texts in targets.items():
                for row, overlap in zip(rows, texts.find(ids, inputs, ngrams=False), strict=True):
                    if overlap is not None and batch["task"][row] != name:
                        in_test[name][batch["id"][row]] = f"{overlap.kind}: {overlap.target_id}"
    overlaps = {}
    for task in tasks:
        queries = _texts(task.name, task.query_sets)
        hits = queries.find(task.test["id"][:], task.test["input"][:], ngrams=False)
        in_queries = tuple(row for row, overlap in enumerate(hits) if overlap is not None)
        overlaps[task.name] = Overlaps(in_queries, in_test[task.name], task.name in upstream_tasks)
    return overlaps


def check_overlaps(overlaps: Mapping[str, Overlaps], tasks: Sequence[TargetTask]) -> None:
    """Refuses test examples among queries or upstream.

    Raises:
        OverlapError: There are such examples.
    """
    found = []
    for task in tasks:
        overlap = overlaps[task.name]
        if overlap.test_in_queries:
            rows = overlap.test_in_queries
            ids = ", ".join(repr(task.test["id"][row]) for row in rows[:_SHOWN]) + ", ..." * (len(rows) > _SHOWN)
            found.append(f"{task.name}: {len(rows)} of {len(task.test)} test examples in query sets: {ids}")
        if overlap.upstream_in_test:
            shown = "; ".join(f"{one} = {other}" for one, other in list(overlap.upstream_in_test.items())[:_SHOWN])
            shown += "; ..." * (len(overlap.upstream_in_test) > _SHOWN)
            found.append(f"{task.name}: {len(overlap.upstream_in_test)} upstream examples in the test set: {shown}")
    if found:
        raise OverlapError(
            "Expected test examples that are neither queries nor upstream, found\n  "
            + "\n  ".join(found)
            + "\nTake them out, or pass `on_overlap='drop'` to leave them out here (what the model was trained on it has seen all "
            "the same), or 'report' to keep them and say so in the results."
        )


def without_overlaps(task: TargetTask, overlaps: Overlaps) -> TargetTask:
    """The task without test examples that are queries.

    Raises:
        OverlapError: All test examples are queries.
    """
    if len(overlaps.test_in_queries) == len(task.test):
        raise OverlapError(
            f"Target task {task.name}: all {len(task.test)} test examples are queries. Give another test set."
        )
    return task.without(overlaps.test_in_queries)


def _texts(name: str, datasets: Sequence[Dataset]) -> Decontaminator:
    return Decontaminator.of([_named(name, dataset) for dataset in datasets])


def _named(name: str, dataset: Dataset) -> Dataset:
    """Ids and inputs under the task's name, whatever the rows say."""
    columns = {column: dataset[column][:] for column in ("id", "input")}
    return Dataset.from_dict(columns | {"task": np.repeat(name, len(dataset)).tolist()})
