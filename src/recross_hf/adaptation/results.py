"""The results of an adaptation, for people to read: shares by task, tables, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from datasets import Dataset

from ..core.plots import new_figure
from ..core.tables import format_table
from .record import Adaptation


def task_shares(retrieved: Dataset) -> dict[str, float]:
    """The share of each upstream task in the retrieved examples, largest first; shares sum to 1."""
    counts = Counter(retrieved["task"][:])
    return {
        task: count / len(retrieved) for task, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }


def adaptation_results(
    adaptation: Adaptation, retrieved: Dataset, *, task: str, seconds: dict[str, float]
) -> dict[str, Any]:
    """The record of an adaptation as JSON values; `base` and `adapted` are None where nothing was evaluated.

    Args:
        adaptation: Record of the adaptation; its evaluations with the prefixes `base` and `adapted` are taken up.
        retrieved: Examples that the model learned from.
        task: Name of the target task.
        seconds: Wall time by stage.
    """
    settings, evaluations = adaptation.settings, adaptation.evaluations
    return {
        "task": task,
        "num_queries": adaptation.num_queries,
        "num_retrieved": len(retrieved),
        **{name: evaluations[name].scores if name in evaluations else None for name in ("base", "adapted")},
        "gate": None if adaptation.gate is None else asdict(adaptation.gate),
        "retrieved_tasks": task_shares(retrieved),
        **{name: settings.get(name) for name in ("retriever", "reranker", "upsampling_ratio", "select_by")},
        "decoding": dict(adaptation.decoding),
        "seed": settings["seed"],
        "seconds": {stage: round(duration, 3) for stage, duration in seconds.items()},
    }


def format_results(results: dict[str, Any], *, top: int = 5) -> str:
    """Writes [`adaptation_results`] as a few lines of text.

    Args:
        top: Number of upstream tasks that are named.
    """
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
        blocks.append(f"safety gate ({results['gate']['level']}): {verdict}. {results['gate']['reason']}")
    shares = [[task, f"{100 * share:.1f} %"] for task, share in list(results["retrieved_tasks"].items())[:top]]
    blocks.append(format_table(["top retrieved tasks", "share"], shares))
    stages = [[stage, f"{duration:.1f}"] for stage, duration in results["seconds"].items()]
    blocks.append(format_table(["stage", "seconds"], stages))
    return "\n\n".join(blocks)


def form_rows(gate: Mapping[str, Any]) -> list[list[str]]:
    """The form of the base's answers and of the adapted model's, a row for each sign: its name and two cells.

    Args:
        gate: A [`GateVerdict`] as JSON values.
    """
    forms = [gate[name]["answers"] for name in ("base", "adapted")]
    number = forms[0]["num_answers"]

    def counts(name: str, of: int = number, *, is_lack: bool = False) -> list[str]:
        return [f"{round((1 - form[name] if is_lack else form[name]) * of)} of {of}" for form in forms]

    rows = [
        ["had text", *counts("empty_share", is_lack=True)],
        ["ended", *counts("unended_share", is_lack=True)],
        ["were free of repetitions", *counts("repetitive_share", is_lack=True)],
        ["were the most frequent one", *counts("most_frequent_share")],
        ["usual length, in characters", *[f"{form['median_characters']:.0f}" for form in forms]],
        ["letters of most", *[form["script"].capitalize() or "none" for form in forms]],
    ]
    if with_options := forms[0]["num_with_options"]:
        rows.insert(0, ["were among the options of their input", *counts("among_options_share", with_options)])
    return rows


def plot_task_shares(retrieved: Dataset, path: str | Path, *, title: str, top: int = 15) -> None:
    """Draws the share of each upstream task as a bar chart (PNG, SVG or PDF by the ending of `path`).

    Args:
        retrieved: Examples with a column `task`.
        title: Title above the chart.
        top: Number of tasks that have a bar of their own; the others share one.

    Raises:
        ImportError: Matplotlib is not installed.
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
