"""Sampling of query sets: their tasks, queries and held-out examples, which the seed and the set's number alone decide."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
from datasets import Dataset

from ..data.schema import ExampleError
from .arguments import SupervisionArguments

logger = logging.getLogger(__name__)


class QuerySetSampler:
    """Samples query sets of the tasks that have enough examples.

    Args:
        examples: Upstream examples to draw queries and held-out examples from.
        args: Settings of the mining.
        excluded: Tasks that are not queried.

    Raises:
        ExampleError: A column is missing, or no task has enough examples.
    """

    def __init__(self, examples: Dataset, args: SupervisionArguments, excluded: Collection[str]) -> None:
        self.examples = examples
        self.args = args
        self.rows_of = _rows_by_task(examples, args, excluded)

    def task_of(self, number: int) -> str:
        """Task of a query set: tasks take turns, each time in another order."""
        turn, position = divmod(number, len(self.rows_of))
        order = np.random.default_rng([self.args.seed, 1, turn]).permutation(len(self.rows_of))
        return sorted(self.rows_of)[order[position]]

    def draw(self, task: str, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
        """Draws the queries and the held-out examples of a task, none of them twice."""
        args = self.args
        drawn = rng.choice(self.rows_of[task], args.num_queries + args.num_held_out, replace=False)
        queries, held_out = drawn[: args.num_queries], drawn[args.num_queries :]
        return self.examples.select(queries), self.examples.select(held_out)


def _rows_by_task(examples: Dataset, args: SupervisionArguments, excluded: Collection[str]) -> dict[str, np.ndarray]:
    """Rows of the tasks that have enough examples for a query set."""
    missing = [name for name in ("id", "task", "input", "references") if name not in examples.column_names]
    if missing:
        raise ExampleError(
            f"Expected the columns id, task, input and references, found {', '.join(examples.column_names)}. Read the data "
            "with `load_examples`."
        )
    column = examples.select_columns("task").with_format("arrow")[:]["task"].combine_chunks().dictionary_encode()
    names, codes = column.dictionary.to_pylist(), column.indices.to_numpy()
    needed = args.num_queries + args.num_held_out
    code_of = {name: code for code, name in enumerate(names)}
    counts = np.bincount(codes, minlength=len(names))
    allowed = {name: int(counts[code]) for name, code in sorted(code_of.items()) if name not in excluded}
    short = {name: count for name, count in allowed.items() if count < needed}
    if short:
        logger.warning(
            "%d of %d tasks have fewer than %d examples (num_queries + num_held_out) and are not mined: %s.",
            len(short),
            len(allowed),
            needed,
            ", ".join(f"{name} ({count})" for name, count in short.items()),
        )
    if len(short) == len(allowed):
        raise ExampleError(
            f"Expected a task with at least {args.num_queries} + {args.num_held_out} = {needed} examples (num_queries + "
            f"num_held_out), found {', '.join(f'{name} ({count})' for name, count in short.items()) or 'no task'}. Lower "
            "`num_held_out`, or bring more examples."
        )
    return {name: np.flatnonzero(codes == code_of[name]) for name in allowed if name not in short}
