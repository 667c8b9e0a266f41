"""The form that all benchmarks give their figures: ours, a peer and, where there is one, a bound, from one run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table


@dataclass(frozen=True)
class Figure:
    """What was measured, beside what it is compared with.

    Args:
        what: the work.
        unit: of `ours`, `peer` and `bound`, e.g. "examples/s" or "ms".
        peer_name: who else did the same work in the same run.
        ratio: of ours to the peer, the median pair by pair where they took turns.
        goal: what the ratio is to be.
        at_most: whether the goal is the most that it may be, or the least.
        bound: what the hardware allows: the same work with nothing else to do.
        least_of_bound: the share of the bound that is to be reached.
    """

    what: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    ratio: float
    goal: float | None = None
    at_most: bool = False
    bound: float | None = None
    least_of_bound: float | None = None

    @property
    def of_bound(self) -> float | None:
        """How near it comes to the bound: 1 is all that there is."""
        if self.bound is None:
            return None
        return self.bound / self.ours if self.at_most else self.ours / self.bound

    @property
    def is_met(self) -> bool:
        """Whether all its goals are met."""
        reached = self.goal is None or (self.ratio <= self.goal if self.at_most else self.ratio >= self.goal)
        return reached and (self.least_of_bound is None or self.of_bound >= self.least_of_bound)


def format_figures(figures: Iterable[Figure]) -> str:
    """A table of figures."""
    rows = []
    for figure in figures:
        sign = "<=" if figure.at_most else ">="
        goals = [] if figure.goal is None else [f"{sign} {figure.goal:g}"]
        goals += [] if figure.least_of_bound is None else [f"{figure.least_of_bound:g} of bound"]
        rows.append(
            [
                figure.what,
                f"{figure.ours:.4g} {figure.unit}",
                f"{figure.peer:.4g} ({figure.peer_name})",
                f"{figure.ratio:.2f}",
                "" if figure.bound is None else f"{figure.bound:.4g}",
                "" if figure.of_bound is None else f"{figure.of_bound:.2f}",
                ", ".join(goals),
                "" if not goals else "yes" if figure.is_met else "no",
            ]
        )
    return format_table(["what", "ours", "peer", "ratio", "bound", "of it", "goal", "met"], rows)


def report(figures: Sequence[Figure], raw: dict[str, Any], output: Path) -> None:
    """Prints the figures and keeps them with what they were made of."""
    print(format_figures(figures))
    write_json(output, {"figures": [asdict(figure) for figure in figures], **raw})
