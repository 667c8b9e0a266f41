"""The results of upstream training, task by task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.tables import format_table


def task_results(
    metrics: Mapping[str, float], num_examples: Mapping[str, int], *, decoding: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The results of [`ExampleTrainer.evaluate`] on a dictionary of tasks as JSON values: the mean and, in `tasks`, each task.

    Args:
        metrics: Metrics with the prefix `eval`.
        num_examples: Number of examples of each task.
        decoding: Settings that change answers ([`ExampleTrainer.decoding`]), to be said beside the scores.
    """
    names = ("soft_em", "exact_match", "loss")
    tasks = {
        task: {name: metrics[f"eval_{task}_{name}"] for name in names} | {"n": number}
        for task, number in num_examples.items()
    }
    said = {} if decoding is None else {"decoding": dict(decoding)}
    return {f"eval_{name}": metrics[f"eval_{name}"] for name in names} | {"tasks": tasks} | said


def format_task_results(results: dict[str, Any]) -> str:
    """Writes [`task_results`] as a table."""
    rows = [
        [task, f"{found['soft_em']:.1f}", f"{found['exact_match']:.1f}", f"{found['loss']:.3f}", str(found["n"])]
        for task, found in results["tasks"].items()
    ]
    total = sum(found["n"] for found in results["tasks"].values())
    mean = [f"{results['eval_soft_em']:.1f}", f"{results['eval_exact_match']:.1f}", f"{results['eval_loss']:.3f}"]
    return format_table(["task", "SoftEM", "exact match", "loss", "n"], [*rows, ["mean of tasks", *mean, str(total)]])
