"""Evaluation of a reranker: how well it orders candidates of tasks that it was not trained on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from datasets import Dataset

from ..core.distributed import process_state
from ..core.tables import format_table
from .metrics import roc_auc, spearman
from .reranker import Reranker, with_answer


def split_by_task(
    pairs: Dataset, *, dev_tasks: Collection[str] | None = None, num_dev_tasks: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Splits pairs by task: those to train on, and those of held-out tasks to evaluate on.

    The training split has no text of a held-out task, neither query nor candidate; held-out queries keep their
    candidates of other tasks, as those of an unseen task would.

    Args:
        pairs: Pairs of [`mine_supervision`].
        dev_tasks: Query tasks to hold out.
        num_dev_tasks: Number of query tasks to hold out, drawn at random, in place of their names.
        seed: Seed of the draw.

    Returns:
        The splits `(train, dev)`.

    Raises:
        TypeError: Both `dev_tasks` and `num_dev_tasks` were passed, or neither.
        ValueError: A task is unknown, or a split would be empty.
    """
    if (dev_tasks is None) == (num_dev_tasks is None):
        number = "neither" if dev_tasks is None else "both"
        raise TypeError(
            f"Expected `dev_tasks` or `num_dev_tasks`, one of them, found {number}. Pass names or a number."
        )
    tasks = sorted(set(pairs["query_task"][:]))
    if num_dev_tasks is not None:
        if not 0 < num_dev_tasks < len(tasks):
            raise ValueError(
                f"Expected `num_dev_tasks` to be between 1 and {len(tasks) - 1}, for there are {len(tasks)} query tasks, "
                f"found {num_dev_tasks}."
            )
        dev_tasks = np.random.default_rng(seed).choice(tasks, num_dev_tasks, replace=False).tolist()
    held_out = set(dev_tasks or ())
    unknown = sorted(held_out - set(tasks))
    if unknown:
        raise ValueError(
            f"Expected to hold out query tasks, found {', '.join(unknown)}, which are none. Query tasks: {', '.join(tasks)}."
        )
    tasks_of = list(zip(pairs["query_task"][:], pairs["candidate_task"][:], strict=True))
    train = [row for row, (query, candidate) in enumerate(tasks_of) if not {query, candidate} & held_out]
    dev = [row for row, (query, _) in enumerate(tasks_of) if query in held_out]
    if not train or not dev:
        raise ValueError(
            f"Expected pairs in both splits, found {len(train)} to train on and {len(dev)} held out. Hold out other tasks, or fewer."
        )
    return pairs.select(train), pairs.select(dev)


def evaluate_reranker(reranker: Reranker, pairs: Dataset) -> dict[str, float]:
    """Measures how well a reranker finds the candidates that help, beside the retriever's own order; means over query sets.

    Under `accelerate launch` the sets are spread over the processes; each must call it.

    Args:
        reranker: Reranker to evaluate.
        pairs: Pairs of [`mine_supervision`] of tasks that it was not trained on.

    Returns:
        The metrics of each candidate's score for the whole set, over the labelled candidates alone: `auc` (chance: 0.5), `accuracy` of
            calling a set's upper half positive (chance: 0.5), `spearman` with the utility (chance: 0); `dense_auc`, `dense_accuracy`
            and `dense_spearman` of the order in which candidates were chosen, the dense retriever's unless an earlier reranker chose
            them; `num_sets`, the number of query sets.

    Raises:
        ValueError: There are no pairs.
    """
    state = process_state()
    sets = rows_by_set(pairs)  # by number and task: two runs of mining both count from 0
    mine = [
        (number, _metrics_of_set(reranker, pairs.select(rows)))
        for turn, (number, rows) in enumerate(sets.items())
        if turn % state.num_processes == state.process_index
    ]
    gathered = mine if state.num_processes == 1 else gather_object(mine)
    metrics = [values for _, values in sorted(gathered, key=lambda item: item[0])]
    means = {name: float(np.nanmean([values[name] for values in metrics])) for name in metrics[0]}
    return means | {"num_sets": len(metrics)}


def rows_by_set(pairs: Dataset) -> dict[tuple[int, str], list[int]]:
    """Rows of the pairs of each query set, which a number and a task tell."""
    rows: dict[tuple[int, str], list[int]] = {}
    for row, key in enumerate(zip(pairs["set"][:], pairs["query_task"][:], strict=True)):
        rows.setdefault(key, []).append(row)
    if not rows:
        raise ValueError("Expected at least one pair, found none. Mine some with `mine_supervision`.")
    return rows


def _metrics_of_set(reranker: Reranker, pairs: Dataset) -> dict[str, float]:
    columns = pairs.to_dict()
    queries = list(dict.fromkeys(columns["query"]))
    first = {id_: row for row, id_ in reversed(list(enumerate(columns["candidate_id"])))}
    rows = list(first.values())
    labels, utilities, ranks = (
        np.array([columns[name][row] for row in rows]) for name in ("label", "utility", "rank")
    )
    texts = [
        candidate_text(columns["candidate"][row], columns["answer"][row], reranker.include_answers) for row in rows
    ]
    scores = reranker.rank(queries, texts)
    return {
        "accuracy": _accuracy(scores, labels),
        "auc": roc_auc(scores, labels),
        "spearman": spearman(scores, utilities),
        "dense_accuracy": _accuracy(-ranks, labels),
        "dense_auc": roc_auc(-ranks, labels),
        "dense_spearman": spearman(-ranks, utilities),
    }


def _accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(((scores > np.median(scores)) == (labels == 1)).mean())


def candidate_text(text: str, answer: str, include_answers: bool) -> str:
    """Text that a reranker reads of a candidate: its input, or its input and its answer."""
    return with_answer(text, answer) if include_answers else text


def format_reranker_metrics(metrics: dict[str, Any]) -> str:
    """Formats the metrics of [`evaluate_reranker`] as a table, beside those of the retriever's order and of chance.

    Args:
        metrics: Metrics of [`evaluate_reranker`], with the names of the held-out tasks as `dev_tasks`, if they are to be shown.
    """
    rows = [
        [name, f"{metrics[key]:.3f}", f"{metrics[f'dense_{key}']:.3f}", chance]
        for name, key, chance in (
            ("accuracy", "accuracy", "0.500"),
            ("AUC", "auc", "0.500"),
            ("rank correlation with utility", "spearman", "0.000"),
        )
    ]
    held_out = f" of {', '.join(metrics['dev_tasks'])}" if "dev_tasks" in metrics else ""
    table = format_table(["on held-out tasks", "reranker", "dense order", "chance"], rows)
    return f"{metrics['num_sets']} query sets{held_out}\n\n{table}"
