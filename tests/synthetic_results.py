"""Results of an evaluation that was never run: known effects, seeded noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from datasets import Dataset

from recross_hf.evaluation.results import PREDICTION_FEATURES, SHARED, Cell, EvaluationResults

FLOORS = ("best constant", "majority answer", "echo")


def synthetic_results(
    gains: Mapping[str, float],
    *,
    tasks: Sequence[str] = ("anli_r3", "piqa", "mine"),
    upstream: Sequence[str] = ("ag_news", "imdb", "qasc", "quail"),
    num_sets: int = 3,
    num_examples: int = 60,
    renderings: int = 2,
    variants: Mapping[str, tuple[str, float, dict]] | None = None,
    failed: Sequence[tuple[str, str, int]] = (),
    ranked: Sequence[str] = (),
    seed: int = 0,
) -> EvaluationResults:
    """Results in which each method's chance of a right answer is that of the base and its gain.

    Args:
        gains: by method; that of `none`, the base, is 0.
        renderings: of each source example.
        variants: by name: the method that it varies, its gain, and the settings that it has in place of that method's.
        failed: cells (method, task, query set) without predictions.
        ranked: tasks whose answer choices are known.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, list] = {name: [] for name in PREDICTION_FEATURES}
    cells = []
    variants = variants or {}
    gains = {**gains, **{name: gain for name, (_, gain, _) in variants.items()}}
    level = {task: rng.uniform(0.25, 0.6) for task in tasks}
    # A source is easy or hard for all methods: differences of pairs are surer than scores.
    ease = {task: np.repeat(rng.normal(0, 0.25, -(-num_examples // renderings)), renderings) for task in tasks}
    for method, gain in gains.items():
        family, _, settings = variants.get(method, (method, 0.0, {}))
        for task in tasks:
            for query_set in [SHARED] if method == "none" else range(num_sets):
                cell = Cell(method, task, query_set, kind="base" if method == "none" else "method", family=family)
                cell = replace(cell, seconds={"predict": float(rng.uniform(2, 3))}, details=_details(task, method))
                if method != "none":
                    cell = replace(
                        cell,
                        num_queries=settings.get("num_queries", 16),
                        num_retrieved=settings.get("num_retrieved", 512),
                        upsampling_ratio=settings.get("upsampling_ratio", 2.0),
                        retrieved_tasks=_shares(rng, upstream, tasks.index(task), is_random=method == "random"),
                        seconds={"retrieve": 0.5, "train": float(rng.uniform(20, 40)), **cell.seconds},
                    )
                if (method, task, query_set) in failed:
                    cells.append(replace(cell, error="RuntimeError: out of memory", seconds={}, retrieved_tasks=None))
                    continue
                cells.append(cell)
                chance = level[task] + gain + rng.normal(0, 0.01) + ease[task][:num_examples]
                right = rng.random(num_examples) < chance
                _append(columns, cell, right, task in ranked, renderings, rng)
    for place, floor in enumerate(FLOORS):
        for task in tasks:
            cell = Cell(floor, task, kind="floor", family=floor)
            cells.append(cell)
            _append(columns, cell, rng.random(num_examples) < 0.2 + 0.1 * place, task in ranked, renderings, rng)
    return EvaluationResults(Dataset.from_dict(columns, features=PREDICTION_FEATURES), cells)


def _append(
    columns: dict[str, list], cell: Cell, right: np.ndarray, is_ranked: bool, renderings: int, rng: np.random.Generator
) -> None:
    number = len(right)
    soft = right | (rng.random(number) < 0.1)
    rows = {
        "method": [cell.method] * number,
        "task": [cell.task] * number,
        "query_set": [cell.query_set] * number,
        "id": [f"{cell.task}|test|t{row % renderings}|#{row // renderings}" for row in range(number)],
        "source": [f"{cell.task}#{row // renderings}" for row in range(number)],
        "prediction": ["yes" if one else "<b>no</b>" for one in right],
        "soft_em": soft.tolist(),
        "exact_match": right.tolist(),
        "rank_correct": soft.tolist() if is_ranked else [None] * number,
        "in_answers": (rng.random(number) < 0.9).tolist() if is_ranked else [None] * number,
        "num_words": rng.integers(1, 5, number).tolist(),
    }
    for name, values in rows.items():
        columns[name] += values


def _details(task: str, method: str) -> dict:
    overlaps = {"test_in_queries": 0, "upstream_in_test": 2 * (task == "piqa"), "handling": "report"}
    return {"overlaps": overlaps, "settings": {"model": "0" * 64, "method": method}}


def _shares(rng: np.random.Generator, upstream: Sequence[str], favourite: int, *, is_random: bool) -> dict[str, float]:
    weights = np.ones(len(upstream)) if is_random else rng.gamma(0.25, size=len(upstream))
    if not is_random:
        weights[favourite % len(upstream)] += 1.5
    counts = rng.multinomial(512, weights / weights.sum())
    return {name: float(count / 512) for name, count in zip(upstream, counts, strict=True) if count}
