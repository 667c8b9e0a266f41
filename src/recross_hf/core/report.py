"""What was adapted, mined or trained, for people to read: shares by task, tables, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

if TYPE_CHECKING:
    from ..adaptation.adapter import RetrievalAugmentedAdapter


def task_shares(retrieved: Dataset) -> dict[str, float]:
    """Share of each upstream task in the retrieved examples, largest first; shares sum to 1."""
    counts = Counter(retrieved["task"][:])
    return {
        task: count / len(retrieved) for task, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }


def adaptation_results(adapter: RetrievalAugmentedAdapter, *, task: str, seconds: dict[str, float]) -> dict[str, Any]:
    """What an adaptation did, as JSON values; `base` and `adapted` are None where nothing was evaluated.

    Args:
        adapter: a trained adapter; evaluations with the prefixes `base` and `adapted` are taken up.
        seconds: wall time by stage.
    """
    return {
        "task": task,
        "num_queries": len(adapter.query_dataset),
        "num_retrieved": len(adapter.retrieved),
        "base": adapter.scores.get("base"),
        "adapted": adapter.scores.get("adapted"),
        "gate": None if adapter.gate is None else asdict(adapter.gate),
        "retrieved_tasks": task_shares(adapter.retrieved),
        "retriever": type(adapter.retriever).__name__,
        "reranker": type(adapter.reranker).__name__ if adapter.reranker is not None else None,
        "upsampling_ratio": adapter.args.upsampling_ratio if adapter.selects else None,
        "select_by": adapter.args.select_by if adapter.selects else None,
        "seed": adapter.args.seed,
        "seconds": {stage: round(duration, 3) for stage, duration in seconds.items()},
    }


def format_results(results: dict[str, Any], *, top: int = 5) -> str:
    """[`adaptation_results`] as a few lines of text."""
    selected = ""
    if results["select_by"]:
        kept = {"example": "best", "task": "main tasks"}[results["select_by"]]
        selected = f", {kept} of {results['upsampling_ratio']:g} x"
        selected += f" by {results['reranker']}" if results["reranker"] else ""
    blocks = [
        f"{results['task']}: {results['num_queries']} unlabelled inputs, {results['num_retrieved']} upstream examples "
        f"({results['retriever']}{selected})"
    ]
    if results["base"] and results["adapted"]:
        rows = [
            [name, f"{scores['soft_em']:.1f}", f"{scores['exact_match']:.1f}", str(scores["n"])]
            for name, scores in (("base", results["base"]), ("adapted", results["adapted"]))
        ]
        change = [results["adapted"][metric] - results["base"][metric] for metric in ("soft_em", "exact_match")]
        rows.append(["change", f"{change[0]:+.1f}", f"{change[1]:+.1f}", ""])
        blocks.append(format_table(["model", "SoftEM", "exact match", "n"], rows))
    else:
        blocks.append("Not evaluated: no labelled examples were given.")
    if results["gate"]:
        verdict = "kept" if results["gate"]["kept"] else "not kept, the base's weights were put back"
        blocks.append(f"safety gate: {verdict}. {results['gate']['reason']}")
    shares = [[task, f"{100 * share:.1f} %"] for task, share in list(results["retrieved_tasks"].items())[:top]]
    blocks.append(format_table(["top retrieved tasks", "share"], shares))
    stages = [[stage, f"{duration:.1f}"] for stage, duration in results["seconds"].items()]
    blocks.append(format_table(["stage", "seconds"], stages))
    return "\n\n".join(blocks)


def task_results(metrics: Mapping[str, float], num_examples: Mapping[str, int]) -> dict[str, Any]:
    """What [`ExampleTrainer.evaluate`] found on a dictionary of tasks, as JSON values: the mean and, in `tasks`, each task.

    Args:
        metrics: with the prefix `eval`.
        num_examples: of each task.
    """
    names = ("soft_em", "exact_match", "loss")
    tasks = {
        task: {name: metrics[f"eval_{task}_{name}"] for name in names} | {"n": number}
        for task, number in num_examples.items()
    }
    return {f"eval_{name}": metrics[f"eval_{name}"] for name in names} | {"tasks": tasks}


def format_task_results(results: dict[str, Any]) -> str:
    """[`task_results`] as a table."""
    rows = [
        [task, f"{found['soft_em']:.1f}", f"{found['exact_match']:.1f}", f"{found['loss']:.3f}", str(found["n"])]
        for task, found in results["tasks"].items()
    ]
    total = sum(found["n"] for found in results["tasks"].values())
    mean = [f"{results['eval_soft_em']:.1f}", f"{results['eval_exact_match']:.1f}", f"{results['eval_loss']:.3f}"]
    return format_table(["task", "SoftEM", "exact match", "loss", "n"], [*rows, ["mean of tasks", *mean, str(total)]])


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of text under a header, the first column to the left and the others to the right."""
    table = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = []
    for row in table:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * (len(widths) - 1)), *lines[1:]])


def plot_task_shares(retrieved: Dataset, path: str | Path, *, title: str, top: int = 15) -> None:
    """Draws the share of each upstream task as a bar chart (PNG, SVG or PDF by the ending of `path`).

    Raises:
        ImportError: matplotlib is not installed.
    """
    shares = task_shares(retrieved)
    shown = list(shares.items())[:top]
    if len(shares) > top:
        shown.append((f"{len(shares) - top} others", sum(list(shares.values())[top:])))
    names, values = zip(*reversed(shown), strict=True)
    figure = new_figure(8, 1.6 + 0.3 * len(shown))
    axes = figure.add_subplot()
    bars = axes.barh(names, [100 * value for value in values], color="#4c72b0")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlabel(f"share of the {len(retrieved)} retrieved examples (%)")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(path, dpi=150)


def format_supervision(summary: dict[str, Any], *, top: int = 5) -> str:
    """[`summarize_supervision`] as a few lines of text, with the most and the least helpful pairs of tasks."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in summary["skipped"].items())
    lines = [
        f"{summary['num_mined']} query sets of {summary['num_query_tasks']} tasks mined, "
        f"{summary['num_sets'] - summary['num_mined']} skipped{f' ({skipped})' if skipped else ''}, "
        f"{summary['diverged_groups']} groups diverged."
    ]
    if not summary["num_mined"]:
        return lines[0]
    reliability = summary["reliability"]
    lines.append(
        f"{summary['num_candidates']} candidates: utility {summary['utility_mean']:+.4f} on average (sd "
        f"{summary['utility_std']:.4f}), {100 * summary['share_helpful']:.0f} % help, held-out loss "
        f"{summary['base_loss']:.3f}; reliability {'unknown' if reliability is None else f'{reliability:.2f}'} (0: a round says "
        "nothing of a candidate, 1: all)."
    )
    pairs = [pair for pair in summary["task_pairs"] if pair["num_candidates"] >= 5] or summary["task_pairs"]
    shown = pairs if len(pairs) <= 2 * top else pairs[:top] + pairs[-top:]
    rows = [
        [f"{pair['candidate_task']} -> {pair['query_task']}", f"{pair['utility']:+.4f}", str(pair["num_candidates"])]
        for pair in shown
    ]
    lines.append("\n" + format_table(["who helps whom, most and least", "utility", "candidates"], rows))
    return "\n".join(lines)


def format_reranker_metrics(metrics: dict[str, Any]) -> str:
    """The figures of [`evaluate_reranker`] beside those of the retriever's order and of chance."""
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


def plot_task_utilities(task_pairs: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draws which upstream task (columns) helps which (rows): mean utility, one colour bar, empty where nothing was tried.

    Args:
        task_pairs: of [`summarize_supervision`].
        path: of the picture (PNG, SVG or PDF by its ending).
    """
    queries = sorted({pair["query_task"] for pair in task_pairs})
    candidates = sorted({pair["candidate_task"] for pair in task_pairs})
    utilities = np.full((len(queries), len(candidates)), np.nan)
    for pair in task_pairs:
        place = queries.index(pair["query_task"]), candidates.index(pair["candidate_task"])
        utilities[place] = pair["utility"]
    # Each row in units of its own largest value: the losses of two tasks have different scales.
    largest = np.nanmax(np.abs(utilities), axis=1, keepdims=True)
    figure = new_figure(4 + 0.3 * len(candidates), 3 + 0.28 * len(queries))
    axes = figure.add_subplot()
    image = axes.imshow(utilities / np.where(largest > 0, largest, 1), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    axes.set_xticks(range(len(candidates)), candidates, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(queries)), queries)
    axes.set_xlabel("learning from")
    axes.set_ylabel("queries of")
    axes.set_title("Which task helps which", loc="left")
    figure.colorbar(image, label="mean utility, relative to the row's largest (blue: helps)", shrink=0.8)
    figure.savefig(path, dpi=150)


def new_figure(width: float, height: float) -> Any:
    """A figure of matplotlib, in inches, that needs no display and is no part of pyplot's state.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed: pip install 'recross_hf[plot]'."
        ) from error
    return Figure(figsize=(width, height), layout="constrained")
