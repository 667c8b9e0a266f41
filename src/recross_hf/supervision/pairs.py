"""Pairs of a query and a candidate, labelled by whether the candidate helps."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from datasets import Dataset, Features, Value

from .results import skip_reasons

logger = logging.getLogger(__name__)


PAIR_FEATURES = Features(
    {
        "set": Value("int64"),
        "query": Value("string"),
        "candidate": Value("string"),
        "label": Value("int64"),
        "utility": Value("float64"),
        "query_task": Value("string"),
        "candidate_task": Value("string"),
        "query_id": Value("string"),
        "candidate_id": Value("string"),
        "answer": Value("string"),
        "rank": Value("int64"),
    }
)
"""Columns of a pair to train a reranker on: its `label` is 1 (helps) or 0, its `rank` is that of the candidate in the set."""


def label_pairs(sets: Dataset, num_labelled: int, *, by: str = "example") -> Dataset:
    """Pairs each set's queries with its `num_labelled` best candidates (label 1) and as many worst (label 0).

    Half the number of candidates labels them all. Sets with fewer than twice `num_labelled` candidates are left out.

    Args:
        sets: Query sets of [`load_query_sets`].
        num_labelled: W, the number of candidates of each label.
        by: Utility that decides: "example", each candidate's own (Algorithm 1), or "task", the mean over the candidates of its task
            and one more of no utility, so that a task of few candidates is neither best nor worst by chance.

    Returns:
        The pairs; their `utility` is the one that decided.

    Raises:
        ValueError: No set is left, or `by` is neither.
    """
    if by not in ("example", "task"):
        raise ValueError(f"Expected `by` to be 'example' or 'task', found {by!r}.")
    columns: dict[str, list[Any]] = {name: [] for name in PAIR_FEATURES}
    num_short = 0
    for row in sets:
        # Best first; among equals, what was retrieved first.
        candidates = _of_their_tasks(row["candidates"]) if by == "task" else row["candidates"]
        ordered = sorted(candidates, key=lambda candidate: (-candidate["utility"], candidate["rank"]))
        if len(ordered) < 2 * num_labelled:
            num_short += 1
            continue
        labelled = [(candidate, 1) for candidate in ordered[:num_labelled]]
        labelled += [(candidate, 0) for candidate in ordered[-num_labelled:]]
        for query, query_id in zip(row["queries"], row["query_ids"], strict=True):
            for candidate, label in labelled:
                pair = {
                    "set": row["set"],
                    "query": query,
                    "candidate": candidate["input"],
                    "label": label,
                    "utility": candidate["utility"],
                    "query_task": row["task"],
                    "candidate_task": candidate["task"],
                    "query_id": query_id,
                    "candidate_id": candidate["id"],
                    "answer": candidate["answer"],
                    "rank": candidate["rank"],
                }
                for name, value in pair.items():
                    columns[name].append(value)
    if num_short:
        logger.warning(
            "%d of %d query sets have fewer than 2 x %d candidates and are left out.",
            num_short,
            len(sets),
            num_labelled,
        )
    if not columns["set"]:
        raise ValueError(
            f"Expected query sets with at least 2 x {num_labelled} candidates, found none among {len(sets)}: "
            f"{skip_reasons(sets) or 'all have fewer'}. Mine with more candidates, or label fewer of them."
        )
    return Dataset.from_dict(columns, features=PAIR_FEATURES)


def _of_their_tasks(candidates: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The candidates with the mean utility of their task in place of their own."""
    number = Counter(candidate["task"] for candidate in candidates)
    total: dict[str, float] = dict.fromkeys(number, 0.0)
    for candidate in candidates:
        total[candidate["task"]] += candidate["utility"]
    return [
        candidate | {"utility": total[candidate["task"]] / (number[candidate["task"]] + 1)} for candidate in candidates
    ]
