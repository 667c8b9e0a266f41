"""The findings of an evaluation in sentences, none of which says more than its interval does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ...core.metrics import METRICS
from ..results import SHARED, Cell
from .comparison import Comparison, Difference, Estimate
from .tables import p_text

RANDOM = "random"
BY_TASK = "_by_task"
# Methods that choose by likeness are compared with a draw at random, and methods that are built upon them with them.
_RETRIEVERS = ("bm25", "sbert", "dense")
_BUILT_UPON = {"recross": "dense"}
# In simulations where query sets decide, the 95 % interval of one task covers the truth in 75 % with two sets, in 89 % with five.
_MANY_SETS = 5


class Roles(NamedTuple):
    """The roles of the methods in the results.

    Attributes:
        base: Name of the model as it was; None where it was not tested.
        methods: Names of the methods that are compared; the base and the ablations are not among them.
        floors: Names of answers that need no model.
        variants: Names of ablations, by the method that they vary.
        primary: Name of the method that the results are about; None where there is no method.
    """

    base: str | None
    methods: list[str]
    floors: list[str]
    variants: dict[str, list[str]]
    primary: str | None

    @property
    def compared(self) -> list[str]:
        """Names of the base, where there is one, and of the methods."""
        return ([self.base] if self.base else []) + self.methods


def roles_of(cells: Sequence[Cell], primary: str | None = None) -> Roles:
    """Tells the roles of the methods from their cells.

    Args:
        cells: Cells of the results.
        primary: Name of the method that the results are about; by default `recross`, else `dense`, else the last one. It must not be
            chosen for its score, or that score is too good.

    Raises:
        ValueError: There is no such method.
    """
    kinds: dict[str, list[str]] = {"base": [], "method": [], "floor": []}
    variants: dict[str, list[str]] = {}
    for cell in cells:
        is_variant = cell.kind == "method" and cell.family not in ("", cell.method)
        names = variants.setdefault(cell.family, []) if is_variant else kinds[cell.kind]
        if cell.method not in names:
            names.append(cell.method)
    methods = kinds["method"]
    if primary is None:
        primary = next((name for name in ("recross", "dense") if name in methods), methods[-1] if methods else None)
    elif primary not in methods:
        raise ValueError(f"Expected the primary method among {', '.join(methods) or 'none'}, found {primary!r}.")
    return Roles(next(iter(kinds["base"]), None), methods, kinds["floor"], variants, primary)


def default_pairs(roles: Roles) -> list[tuple[str, str]]:
    """The pairs of methods to compare: each method with the base, and each method with the one that it is built upon.

    The primary method and the base come first.
    """
    pairs = []
    if roles.base is not None:
        others = sorted(roles.methods, key=lambda name: name != roles.primary)
        pairs += [(name, roles.base) for name in others]
    pairs += [(name, RANDOM) for name in _RETRIEVERS]
    pairs += list(_BUILT_UPON.items())
    pairs += [(name, name.removesuffix(BY_TASK)) for name in roles.methods if name.endswith(BY_TASK)]
    known = set(roles.compared)
    return [pair for pair in pairs if set(pair) <= known]


def headline(comparison: Comparison, roles: Roles, differences: Sequence[Difference]) -> str:
    """One sentence on whether retrieval augmentation helps here, by the primary method and the base."""
    if roles.base is None or roles.primary is None:
        return "Whether retrieval augmentation helps cannot be said: a method or the model as it was are not in the results."
    pair = roles.primary, roles.base
    estimate = next((found.overall for found in differences if (found.one, found.other) == pair), None)
    if estimate is None:
        return (
            f"Whether retrieval augmentation helps cannot be said: {roles.primary} and {roles.base} have no finished tasks "
            "in common."
        )
    alpha = 1 - comparison.level
    where = f"on {_number(len(comparison.complete_tasks), 'task')} with {_sets(comparison)}"
    metric = METRICS[comparison.metric].name
    figures = _figures(estimate, comparison.level)
    if estimate.p >= alpha or estimate.low <= 0 <= estimate.high:
        return (
            f"No effect of retrieval augmentation is shown here: {roles.primary} differs by {figures} points of {metric} from "
            f"no retrieval ({roles.base}), {where}; p = {p_text(estimate.p)}."
        )
    answer, verb = ("helps", "gains") if estimate.mean > 0 else ("harms", "loses")
    return (
        f"Retrieval augmentation {answer} here: {roles.primary} {verb} {figures} points of {metric} over no retrieval "
        f"({roles.base}), {where}; p {_relation(estimate.p)}."
    )


def contributions(comparison: Comparison, roles: Roles, differences: Sequence[Difference]) -> list[str]:
    """A sentence on each step of the method that some pair isolates; p-values are corrected for the number of pairs."""
    sentences, alpha = [], 1 - comparison.level
    for difference in differences:
        step = _step(difference, roles)
        if step is None or difference.overall is None:
            continue
        estimate = difference.overall
        verdict = "shows no effect"
        if not estimate.low <= 0 <= estimate.high:
            is_clear = estimate.corrected_p < alpha
            verdict = (
                ("helps" if is_clear else "may help") if estimate.mean > 0 else ("harms" if is_clear else "may harm")
            )
        sentences.append(
            f"{step} {verdict}: {difference.one} - {difference.other} {_figures(estimate, comparison.level)}, corrected "
            f"p {_relation(estimate.corrected_p)}."
        )
    return sentences


def below_floors(comparison: Comparison, roles: Roles) -> list[str]:
    """A sentence on each method whose mean is below that of answers without a model.

    Args:
        comparison: Comparison with the floors among its methods.
        roles: Roles of the methods.
    """
    sentences = []
    means = {
        name: summary.mean
        for name in (*roles.floors, *roles.compared)
        if (summary := comparison.summary(name)) is not None
    }
    floors = {name: means[name] for name in roles.floors if name in means}
    for method in roles.compared:
        above = {name: floor for name, floor in floors.items() if method in means and means[method] < floor}
        if above:
            named = ", ".join(f"{name} {floor:.1f}" for name, floor in above.items())
            sentences.append(
                f"{method} is below a floor: its {METRICS[comparison.metric].name} is {means[method]:.1f}; answers that need no "
                f"model get more ({named})."
            )
    return sentences


def reservations(comparison: Comparison, cells: Sequence[Cell]) -> list[str]:
    """Sentences on what the intervals do not cover and which cells are missing."""
    sentences = list(comparison.notes)
    if len(comparison.complete_sets) == 1 and comparison.complete_sets != [SHARED]:
        sentences.append(
            "There is one query set: the intervals do not cover that another one retrieves other examples."
        )
    elif len(comparison.complete_sets) in range(2, _MANY_SETS):
        sentences.append(
            f"There are {len(comparison.complete_sets)} query sets: where they differ much, intervals of single tasks are too "
            "narrow."
        )
    failed = [cell for cell in cells if cell.error is not None]
    if failed:
        sentences.append(f"{len(failed)} of {sum(cell.kind != 'floor' for cell in cells)} cells failed; see below.")
    return sentences


def _step(difference: Difference, roles: Roles) -> str | None:
    one, other = difference.one, difference.other
    if other == roles.base:
        return "Training on upstream examples drawn at random" if one == RANDOM else None
    if other == RANDOM:
        return f"Retrieving by likeness ({one}) rather than at random"
    if _BUILT_UPON.get(one) == other:
        return "Choosing examples by the reranker"
    if one == f"{other}{BY_TASK}":
        return f"Selecting whole tasks ({one})"
    return None


def _figures(estimate: Estimate, level: float) -> str:
    return f"{estimate.mean:+.2f} [{100 * level:g} % interval {estimate.low:+.2f}, {estimate.high:+.2f}]"


def _relation(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _sets(comparison: Comparison) -> str:
    return _number(len(comparison.complete_sets), "query set")
