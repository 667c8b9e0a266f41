"""Results of a mining for people to read: a summary, a table, a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..core.plots import new_figure
from ..core.tables import format_table


def summarize_supervision(sets: Dataset) -> dict[str, Any]:
    """Summarizes mined query sets, as JSON values.

    `reliability` is the correlation of a set's candidates' utilities in one round with those in the next (mean over sets): 0 where
    a round says nothing of a candidate, 1 where it says all. In groups a candidate shares its round with the others of its group,
    so that twenty of a hundred leave little; the mean over rounds is somewhat better than one round. `task_pairs` says which upstream
    task helps which: mean utility and number of candidates, most helpful first.

    Args:
        sets: Query sets of [`load_query_sets`].
    """
    rows = [row for row in sets if not row["skipped"]]
    utilities = np.array([candidate["utility"] for row in rows for candidate in row["candidates"]])
    of_pair: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for candidate in row["candidates"]:
            of_pair.setdefault((row["task"], candidate["task"]), []).append(candidate["utility"])
    task_pairs = [
        {
            "query_task": query,
            "candidate_task": other,
            "num_candidates": len(values),
            "utility": float(np.mean(values)),
        }
        for (query, other), values in of_pair.items()
    ]
    reliabilities = [value for row in rows if (value := _reliability(row)) is not None]
    return {
        "num_sets": len(sets),
        "num_mined": len(rows),
        "skipped": dict(Counter(row["skipped"] for row in sets if row["skipped"])),
        "diverged_groups": sum(row["diverged_groups"] for row in sets),
        "num_query_tasks": len({row["task"] for row in rows}),
        "num_candidates": len(utilities),
        "base_loss": float(np.mean([row["base_loss"] for row in rows])) if rows else None,
        "utility_mean": float(utilities.mean()) if len(utilities) else None,
        "utility_std": float(utilities.std()) if len(utilities) else None,
        "share_helpful": float((utilities > 0).mean()) if len(utilities) else None,
        "reliability": float(np.mean(reliabilities)) if reliabilities else None,
        "task_pairs": sorted(task_pairs, key=lambda pair: -pair["utility"]),
    }


def _reliability(row: dict[str, Any]) -> float | None:
    utilities = np.array([candidate["utilities"] for candidate in row["candidates"]])
    utilities = utilities[np.isfinite(utilities).all(axis=1)]
    if utilities.ndim != 2 or utilities.shape[1] < 2 or len(utilities) < 3 or (utilities.std(axis=0) == 0).any():
        return None
    # Rounds are compared two by two: those of `by_reversal` then have no held-out example in common.
    first, second = utilities[:, 0:-1:2], utilities[:, 1::2]
    return float(np.mean([np.corrcoef(one, other)[0, 1] for one, other in zip(first.T, second.T, strict=True)]))


def skip_reasons(sets: Dataset) -> str:
    """Reasons why query sets were skipped, with their counts."""
    counts = Counter(row for row in sets["skipped"][:] if row)
    return ", ".join(f"{reason} ({count})" for reason, count in counts.items())


def format_supervision(summary: dict[str, Any], *, top: int = 5) -> str:
    """Formats a summary as a few lines of text, with the most and the least helpful pairs of tasks.

    Args:
        summary: Summary of [`summarize_supervision`].
        top: Number of pairs of tasks at either end.
    """
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


def plot_task_utilities(task_pairs: Sequence[dict[str, Any]], path: str | Path) -> None:
    """Draws which upstream task (columns) helps which (rows): mean utility, one colour bar, empty where nothing was tried.

    Args:
        task_pairs: Pairs of tasks of [`summarize_supervision`].
        path: File to write, a PNG, SVG or PDF by its ending.
    """
    queries = sorted({pair["query_task"] for pair in task_pairs})
    candidates = sorted({pair["candidate_task"] for pair in task_pairs})
    utilities = np.full((len(queries), len(candidates)), np.nan)
    for pair in task_pairs:
        utilities[queries.index(pair["query_task"]), candidates.index(pair["candidate_task"])] = pair["utility"]
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
