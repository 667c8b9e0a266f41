"""What an adaptation did, for people to read: shares by task, tables, a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

if TYPE_CHECKING:
    from .adapter import RetrievalAugmentedAdapter


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
        "retrieved_tasks": task_shares(adapter.retrieved),
        "retriever": type(adapter.retriever).__name__,
        "seed": adapter.args.seed,
        "seconds": {stage: round(duration, 3) for stage, duration in seconds.items()},
    }


def format_results(results: dict[str, Any], *, top: int = 5) -> str:
    """[`adaptation_results`] as a few lines of text."""
    blocks = [
        f"{results['task']}: {results['num_queries']} unlabelled inputs, {results['num_retrieved']} upstream examples "
        f"({results['retriever']})"
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
    shares = [[task, f"{100 * share:.1f} %"] for task, share in list(results["retrieved_tasks"].items())[:top]]
    blocks.append(format_table(["top retrieved tasks", "share"], shares))
    stages = [[stage, f"{duration:.1f}"] for stage, duration in results["seconds"].items()]
    blocks.append(format_table(["stage", "seconds"], stages))
    return "\n\n".join(blocks)


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed: pip install 'recross_hf[plot]'."
        ) from error
    shares = task_shares(retrieved)
    shown = list(shares.items())[:top]
    if len(shares) > top:
        shown.append((f"{len(shares) - top} others", sum(list(shares.values())[top:])))
    names, values = zip(*reversed(shown), strict=True)
    figure = Figure(figsize=(8, 1.6 + 0.3 * len(shown)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh(names, [100 * value for value in values], color="#4c72b0")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlabel(f"share of the {len(retrieved)} retrieved examples (%)")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.1)
    figure.savefig(path, dpi=150)
