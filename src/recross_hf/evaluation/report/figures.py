"""The pictures of an evaluation: scores, paired differences, ablations, and shares of upstream tasks (paper, figure 3)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.metrics import METRICS
from ...core.plots import new_figure
from ...core.statistics import Interval
from ..results import Cell
from .comparison import Comparison, Difference, Estimate
from .tables import p_text, pair_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In Okabe and Ito's palette, colours stay apart for those who do not see red and green as two.
_BETTER, _WORSE, _UNCLEAR, _INK = "#0072B2", "#D55E00", "#8a8a8a", "#222222"
_SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_LONGEST_NAME = 36
_ABLATED = {"num_queries": "|Q|", "num_retrieved": "|R|", "upsampling_ratio": "mu"}


def draw_scores(comparison: Comparison, *, floors: Sequence[str] = ()) -> Figure:
    """Draws each method's mean with its interval and the means of its query sets; floors are lines across."""
    methods = [name for name in comparison.complete_methods if name not in floors]
    figure = new_figure(8, 1.5 + 0.38 * len(methods))
    axes = figure.add_subplot()
    for place, method in enumerate(methods):
        interval = comparison.interval(method)
        if interval is None:
            continue
        axes.plot([interval.low, interval.high], [place, place], color=_BETTER, linewidth=2, solid_capstyle="butt")
        sets = comparison.by_query_set(method)
        if np.ptp(sets):
            axes.plot(sets, np.full(len(sets), place), "|", color=_INK, markersize=9, alpha=0.6)
        axes.plot(interval.mean, place, "o", color=_BETTER, markersize=7)
        axes.annotate(f"{interval.mean:.1f}", (interval.high, place), (6, 0), textcoords="offset points", va="center")
    for floor, style in zip(floors, ("--", ":", "-.", (0, (5, 1))), strict=False):
        summary = comparison.summary(floor)
        if summary is not None:
            axes.axvline(summary.mean, color=_WORSE, linestyle=style, linewidth=1.2, label=f"floor: {_label(floor)}")
    axes.set_yticks(range(len(methods)), list(map(_label, methods)))
    axes.set_ylim(len(methods) - 0.5, -0.5)
    axes.margins(x=0.1)
    label = METRICS[comparison.metric].label
    axes.set_xlabel(
        f"{label}, mean of {len(comparison.complete_tasks)} tasks, {_level(comparison)} (ticks: query sets)"
    )
    _clear(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=3, fontsize=9, frameon=False)
    return figure


def draw_pairs(comparison: Comparison, differences: Sequence[Difference]) -> Figure:
    """Draws a forest of pairs: the difference of each over all tasks, with its interval."""
    rows = [(pair_name(each), each.overall, False) for each in differences if each.overall is not None]
    figure = new_figure(8.5, 1.4 + 0.36 * len(rows))
    _forest(figure.add_subplot(), comparison, rows)
    return figure


def draw_forest(comparison: Comparison, difference: Difference) -> Figure:
    """Draws a forest of tasks: the paired difference on each, and over all of them."""
    rows = [(task, estimate, False) for task, estimate in difference.by_task.items()]
    if difference.overall is not None:
        rows.append((f"mean of {len(comparison.complete_tasks)} tasks", difference.overall, True))
    figure = new_figure(8.5, 1.7 + 0.32 * len(rows))
    axes = figure.add_subplot()
    _forest(axes, comparison, rows)
    axes.set_title(_label(pair_name(difference)), loc="left")
    return figure


def draw_ablations(
    comparison: Comparison, main: str, cells: Iterable[Cell], *, base: str | None = None
) -> Figure | None:
    """Draws the score of a method against |Q|, |R| and mu, a panel for each setting that is varied; None where none is.

    Args:
        comparison: Comparison of the method, its variants and the base, which is drawn as a line.
        main: Name of the method.
        cells: Cells of the results, which have the settings.
        base: Name of the base; without one there is no line.
    """
    settings: dict[str, dict[str, float]] = {}
    for cell in cells:
        if cell.error is None and cell.method in comparison.complete_methods and cell.num_retrieved is not None:
            known = {name: getattr(cell, name) for name in _ABLATED if getattr(cell, name) is not None}
            settings.setdefault(cell.method, known)
    intervals = {method: interval for method in settings if (interval := comparison.interval(method)) is not None}
    panels = {name: points for name in _ABLATED if len(points := _along(settings, main, name)) > 1}
    if not panels:
        return None
    figure = new_figure(1.2 + 3.1 * len(panels), 3.6)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    line = comparison.summary(base) if base is not None and base in comparison.methods else None
    for axes, color, (name, points) in zip(all_axes, _SERIES, panels.items(), strict=False):
        _ablation_panel(axes, [intervals[method] for _, method in points], [m == main for _, m in points], color)
        if line is not None:
            axes.axhline(line.mean, color=_UNCLEAR, linestyle="--", linewidth=1)
        axes.set_xticks(range(len(points)), [f"{value:g}" for value, _ in points])
        axes.set_xlabel(_ABLATED[name])
        axes.margins(x=0.15, y=0.12)
        _clear(axes)
    all_axes[0].set_ylabel(METRICS[comparison.metric].label)
    dashed = f"; dashed: {_label(base)}" if base is not None and line is not None else ""
    title = f"{_label(main)}: one setting varied at a time (band: {_level(comparison)}{dashed})"
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def draw_retrieved(
    shares: Mapping[str, Mapping[str, float]], *, title: str, columns: Sequence[str], largest: float
) -> Figure:
    """Draws a method's heat map: the share of each upstream task (columns) in the examples for each target task (rows).

    Args:
        shares: Shares of one method by target task, see [`retrieved_shares`].
        title: Title of the picture.
        columns: Names of the upstream tasks, in the order to draw them.
        largest: Share that the darkest colour stands for; the same for all methods, it makes their maps alike.
    """
    from matplotlib.colors import PowerNorm

    values = np.array([[100 * of_target.get(name, 0.0) for name in columns] for of_target in shares.values()])
    figure = new_figure(max(6.5, 3.4 + 0.31 * len(columns)), 2.6 + 0.3 * len(shares))
    axes = figure.add_subplot()
    # Colours follow the square root, so that shares of a few percent can be told from none.
    image = axes.imshow(values, cmap="Blues", norm=PowerNorm(0.5, 0, 100 * largest), aspect="auto")
    axes.set_xticks(range(len(columns)), list(map(_label, columns)), rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shares)), list(map(_label, shares)))
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(shares) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    for row, column in zip(*np.nonzero(values >= 10), strict=True):
        dark = values[row, column] > 30 * largest
        color = "white" if dark else _INK
        axes.text(column, row, f"{values[row, column]:.0f}", ha="center", va="center", color=color, fontsize=7)
    axes.set_title(_label(title), loc="left")
    axes.set_xlabel("upstream task")
    axes.set_ylabel("target task")
    bar = figure.colorbar(image, shrink=0.85, pad=0.01, label="share of the retrieved examples (%)")
    bar.outline.set_visible(False)
    return figure


def retrieved_shares(cells: Iterable[Cell]) -> dict[str, dict[str, dict[str, float]]]:
    """The share of each upstream task by method and target task, mean of the query sets."""
    of_sets: dict[str, dict[str, list[Mapping[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell.retrieved_tasks:
            of_sets[cell.method][cell.task].append(cell.retrieved_tasks)
    return {
        method: {task: _mean_shares(shares) for task, shares in by_task.items()} for method, by_task in of_sets.items()
    }


def by_share(shares: Iterable[Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Names of the upstream tasks; the one with the largest share over methods and targets comes first."""
    totals: dict[str, float] = defaultdict(float)
    for by_task in shares:
        for of_target in by_task.values():
            for name, share in of_target.items():
                totals[name] += share
    return sorted(totals, key=lambda name: (-totals[name], name))


def _forest(axes: Any, comparison: Comparison, rows: Sequence[tuple[str, Estimate, bool]]) -> None:
    alpha = 1 - comparison.level
    axes.axvline(0, color=_INK, linewidth=0.8)
    heading = f"difference, {_level(comparison)}, p"
    axes.annotate(
        heading, (1.02, -0.75), xycoords=("axes fraction", "data"), fontsize=8, color=_UNCLEAR, annotation_clip=False
    )
    for place, (_, estimate, is_mean) in enumerate(rows):
        # A mean over tasks stands alone; one estimate of many needs its p-value corrected.
        p = estimate.p if is_mean else estimate.corrected_p
        color = _UNCLEAR if p >= alpha else _BETTER if estimate.mean > 0 else _WORSE
        axes.plot([estimate.low, estimate.high], [place, place], color=color, linewidth=2.5 if is_mean else 1.8)
        marker, size = ("D", 8) if is_mean else ("o", 6)
        face = "white" if p >= alpha else color
        axes.plot(estimate.mean, place, marker, color=color, markerfacecolor=face, markersize=size)
        text = f"{estimate.mean:+.1f}  [{estimate.low:+.1f}, {estimate.high:+.1f}]  p {p_text(p)}"
        axes.annotate(
            text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8, annotation_clip=False
        )
        if is_mean:
            axes.axhline(place - 0.5, color=_UNCLEAR, linewidth=0.6)
    axes.set_yticks(range(len(rows)), [_label(name) for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {METRICS[comparison.metric].name} (points), {_level(comparison)}")
    _clear(axes)


def _ablation_panel(axes: Any, intervals: Sequence[Interval], is_main: Sequence[bool], color: str) -> None:
    places, means = range(len(intervals)), [interval.mean for interval in intervals]
    lows, highs = [interval.low for interval in intervals], [interval.high for interval in intervals]
    axes.fill_between(places, lows, highs, color=color, alpha=0.15)
    axes.plot(places, means, "-", color=color, linewidth=1.5)
    box = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}  # legible across the dashed line
    for place, mean in enumerate(means):
        axes.plot(place, mean, "o", color=color, markersize=9 if is_main[place] else 6)
        axes.annotate(f"{mean:.1f}", (place, mean), (0, 9), textcoords="offset points", ha="center", bbox=box)


def _along(settings: Mapping[str, Mapping[str, float]], main: str, name: str) -> list[tuple[float, str]]:
    """The main method and those that differ from it in this setting alone, by the value of the setting."""
    of_main = settings.get(main, {})
    points = {
        known[name]: method
        for method, known in settings.items()
        if name in known and all(known.get(other) == of_main.get(other) for other in _ABLATED if other != name)
    }
    return sorted(points.items())


def _mean_shares(of_sets: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for shares in of_sets for name in shares)
    return {name: sum(shares.get(name, 0.0) for shares in of_sets) / len(of_sets) for name in names}


def _level(comparison: Comparison) -> str:
    return f"{100 * comparison.level:g} % interval"


def _clear(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="both", color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)


def _label(text: str) -> str:
    """The text on one line that is not too long, without characters that matplotlib takes for a formula."""
    text = " ".join(text.split())
    if len(text) > _LONGEST_NAME:
        text = f"{text[: _LONGEST_NAME // 2]}...{text[-_LONGEST_NAME // 3 :]}"
    return text.replace("$", r"\$")
