"""What an adaptation did, for people to read: shares by task, tables, a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset


def task_shares(retrieved: Dataset) -> dict[str, float]:
    """Share of each upstream task in the retrieved examples, largest first; shares sum to 1."""
    counts = Counter(retrieved["task"][:])
    return {
        task: count / len(retrieved) for task, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }


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
