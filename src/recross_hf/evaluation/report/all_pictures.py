"""`ReportPictures`: all pictures of a report, with their captions."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ...core.metrics import METRICS
from .analysis import Analysis
from .figures import by_share, draw_ablations, draw_forest, draw_pairs, draw_retrieved, draw_scores, retrieved_shares
from .tables import pair_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 150


class Picture(NamedTuple):
    """A figure as PNG, with the name of its file and its caption."""

    name: str
    caption: str
    png: bytes

    @property
    def address(self) -> str:
        """The picture itself, as an address that needs no other file."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class ReportPictures:
    """The pictures of a report, in its order.

    Args:
        scores: Scores in the report's metric and in SoftEM.
        pairs: Differences of all pairs; nothing where there is no difference of means.
        forests: Differences by task, one for each pair; None where a pair has no task in common.
        ablations: Scores against the settings that were varied.
        heat_maps: Shares of upstream tasks by method.
    """

    scores: Sequence[Picture]
    pairs: Sequence[Picture]
    forests: Sequence[Picture | None]
    ablations: Sequence[Picture]
    heat_maps: Sequence[Picture]

    def all(self) -> list[Picture]:
        """All pictures in one list."""
        forests = [picture for picture in self.forests if picture is not None]
        return [*self.scores, *self.pairs, *forests, *self.ablations, *self.heat_maps]


def draw_pictures(analysis: Analysis) -> ReportPictures:
    """Draws the pictures of a report.

    Raises:
        ImportError: matplotlib is not installed.
    """
    return ReportPictures(
        scores=_scores(analysis),
        pairs=_pairs(analysis),
        forests=_forests(analysis),
        ablations=_ablations(analysis),
        heat_maps=_heat_maps(analysis),
    )


def _scores(analysis: Analysis) -> list[Picture]:
    known = {metric: analysis.known[metric] for metric in analysis.settings.metrics if metric in analysis.known}
    return [
        _picture(
            f"scores-{metric}",
            f"{METRICS[metric].label} of each method, with its interval. Paired differences are far more certain than two intervals side "
            "by side suggest.",
            draw_scores(comparison, floors=analysis.roles.floors),
        )
        for metric, comparison in known.items()
        if set(comparison.complete_methods) & set(analysis.roles.compared)
    ]


def _pairs(analysis: Analysis) -> list[Picture]:
    if all(difference.overall is None for difference in analysis.main_differences):
        return []
    caption = (
        f"Paired differences in {METRICS[analysis.settings.metric].label}, mean over tasks. Filled and coloured: p below "
        f"{1 - analysis.settings.level:.2g} after correction."
    )
    return [_picture("pairs", caption, draw_pairs(analysis.main, analysis.main_differences))]


def _forests(analysis: Analysis) -> list[Picture | None]:
    return [
        _picture(
            f"forest-{number:02d}",
            f"{pair_name(difference)}, task by task. Filled and coloured: p below {1 - analysis.settings.level:.2g}, corrected for the "
            "number of tasks; that of the mean is not.",
            draw_forest(analysis.main, difference),
        )
        if difference.by_task
        else None
        for number, difference in enumerate(analysis.main_differences, start=1)
    ]


def _ablations(analysis: Analysis) -> list[Picture]:
    pictures = []
    for ablation in analysis.ablations:
        figure = draw_ablations(ablation.beside_base, ablation.main, analysis.cells, base=analysis.roles.base)
        if figure is not None:
            caption = f"Score of {ablation.main} against its settings."
            pictures.append(_picture(f"ablations-{ablation.number:02d}", caption, figure))
    return pictures


def _heat_maps(analysis: Analysis) -> list[Picture]:
    shares = {
        method: by_task
        for method, by_task in retrieved_shares(analysis.cells).items()
        if method in analysis.roles.methods
    }
    columns = by_share(shares.values())
    every = [share for by_task in shares.values() for of_target in by_task.values() for share in of_target.values()]
    return [
        _picture(
            f"retrieved-{number:02d}",
            f"What {method} learned from: share of each upstream task, mean of the query sets. The colours of all methods are on one "
            "scale, by the square root.",
            draw_retrieved(by_task, title=method, columns=columns, largest=max(every)),
        )
        for number, (method, by_task) in enumerate(shares.items(), start=1)
    ]


def _picture(name: str, caption: str, figure: Figure) -> Picture:
    file = io.BytesIO()
    # Without the library's version the same results give the same bytes.
    figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})
    return Picture(name, caption, file.getvalue())
