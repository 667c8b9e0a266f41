"""The results of upstream training, task by task."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerState, TrainingArguments

from ..core.tables import format_table

_NAMES = ("soft_em", "exact_match", "loss")


def logged_metrics(state: TrainerState, args: TrainingArguments, tasks: Collection[str]) -> dict[str, float] | None:
    """What the training has measured already of the weights that it ended with: those of its last step, or of its best one.

    Args:
        state: State of a trainer whose training has ended.
        args: Its arguments.
        tasks: Names of the evaluated tasks.

    Returns:
        Metrics with the prefix `eval`, as of [`ExampleTrainer.evaluate`]; None where these weights were not evaluated.
    """
    # The best step of all evaluations need not have a checkpoint; that of the checkpoint is the one that was loaded.
    best = state.best_model_checkpoint if args.load_best_model_at_end else None
    step = state.global_step if best is None else int(Path(best).name.rpartition("-")[2])
    metrics: dict[str, float] = {}
    for entry in state.log_history:
        if entry["step"] == step:
            metrics |= {name: value for name, value in entry.items() if name.startswith("eval_")}
    needed = [f"eval_{name}" for name in _NAMES] + [f"eval_{task}_{name}" for task in tasks for name in _NAMES]
    return metrics if metrics.keys() >= {*needed} else None


def task_results(
    metrics: Mapping[str, float], num_examples: Mapping[str, int], *, decoding: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The results of [`ExampleTrainer.evaluate`] on a dictionary of tasks as JSON values: the mean and, in `tasks`, each task.

    Args:
        metrics: Metrics with the prefix `eval`.
        num_examples: Number of examples of each task.
        decoding: Settings that change answers ([`ExampleTrainer.decoding`]), to be said beside the scores.
    """
    tasks = {
        task: {name: metrics[f"eval_{task}_{name}"] for name in _NAMES} | {"n": number}
        for task, number in num_examples.items()
    }
    said = {} if decoding is None else {"decoding": dict(decoding)}
    return {f"eval_{name}": metrics[f"eval_{name}"] for name in _NAMES} | {"tasks": tasks} | said


def format_task_results(results: dict[str, Any]) -> str:
    """Writes [`task_results`] as a table."""
    rows = [
        [task, f"{found['soft_em']:.1f}", f"{found['exact_match']:.1f}", f"{found['loss']:.3f}", str(found["n"])]
        for task, found in results["tasks"].items()
    ]
    total = sum(found["n"] for found in results["tasks"].values())
    mean = [f"{results['eval_soft_em']:.1f}", f"{results['eval_exact_match']:.1f}", f"{results['eval_loss']:.3f}"]
    return format_table(["task", "SoftEM", "exact match", "loss", "n"], [*rows, ["mean of tasks", *mean, str(total)]])
