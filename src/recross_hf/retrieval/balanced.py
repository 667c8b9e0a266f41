"""Balanced answers: what a retriever finds, without the lean of its answers to one side."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from typing import Any, Self

import numpy as np

from .aggregation import Ranking
from .mixed import MixedRetriever
from .retriever import Retriever
from .upstream_rows import gather_rows


class BalancedRetriever(Retriever):
    """Takes the answers of each upstream task in turn among what another retriever finds, so that none is learned as the usual one.

    ```python
    BalancedRetriever(DenseRetriever(index), pool=4).retrieve(inputs, num_retrieved=512)
    ```

    A model that learns from examples whose answers lean to one side gives that answer more often, as one does that is shown such
    examples (majority label bias; Zhao et al. 2021, arXiv 2102.09690, section 3). The retriever is asked for `pool` times |R|. Of each
    task as many examples are kept as there are among its first |R|, or as many of all tasks (`equal_tasks`), and they are taken from
    the answers of that task in turn, each answer's best example first. An example's answer is the first of its references, in lower
    case. An example that several inputs found has its answer as often, and its repetitions give way to other answers.

    Args:
        retriever: Retriever of the examples to choose among.
        pool: Candidates for each example to retrieve; at 1 there is nothing to choose among.
        equal_tasks: Whether tasks are taken in turn, too.

    Raises:
        TypeError: The retriever is a [`MixedRetriever`], whose random examples are beyond those that are nearest.
        ValueError: The pool is smaller than what is chosen.
    """

    def __init__(self, retriever: Retriever, *, pool: float = 4.0, equal_tasks: bool = False) -> None:
        if not 1 <= pool < math.inf:
            raise ValueError(f"Expected a `pool` of at least 1 times the examples to retrieve, found {pool}.")
        if isinstance(retriever, MixedRetriever):
            raise TypeError(
                "Expected a retriever of candidates, found a MixedRetriever, whose random examples would be passed over. Balance what it "
                "mixes: MixedRetriever(BalancedRetriever(...))."
            )
        super().__init__(retriever.rows)
        self.retriever, self.pool, self.equal_tasks = retriever, float(pool), equal_tasks
        self.uses_inputs = retriever.uses_inputs

    def excluding(self, tasks: Collection[str] = (), ids: Collection[str] = ()) -> Self:
        """The same retriever with more tasks and examples excluded."""
        narrowed = super().excluding(tasks, ids)
        narrowed.retriever = self.retriever.excluding(tasks, ids)
        return narrowed

    def identity(self) -> dict[str, Any]:
        """The identity of the other retriever and the settings."""
        own = {"of": self.retriever.identity(), "pool": self.pool, "equal_tasks": self.equal_tasks}
        return super().identity() | own

    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        found = self.retriever.rank(inputs, math.ceil(self.pool * num_retrieved))
        examples = gather_rows(self.rows, found)
        tasks: list[str] = examples["task"][:]
        answers = [next(iter(references), "").strip().casefold() for references in examples["references"][:]]
        of_task: dict[str, list[int]] = defaultdict(list)
        for place, task in enumerate(tasks):
            of_task[task].append(place)
        # Task by task, the places among what was found in the order in which they are to be taken.
        balanced = {task: in_turn(places, (answers[place] for place in places)) for task, places in of_task.items()}
        if self.equal_tasks:
            order = [place for places in balanced.values() for place in places]
            chosen = in_turn(order, (tasks[place] for place in order))[:num_retrieved]
        else:
            nearest = tasks[:num_retrieved]
            chosen = [place for task in dict.fromkeys(nearest) for place in balanced[task][: nearest.count(task)]]
        return Ranking(*(values[np.sort(np.asarray(chosen, dtype=np.int64))] for values in found))


def in_turn(items: Sequence[int], groups: Iterable[Hashable]) -> list[int]:
    """The first item of each group, then the second of each, and so on; groups in the order of their first items.

    Args:
        items: Items, best first.
        groups: The group of each.
    """
    turns: dict[Hashable, int] = defaultdict(int)
    keyed = []
    for item, group in zip(items, groups, strict=True):
        keyed.append((turns[group], item))
        turns[group] += 1
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]
