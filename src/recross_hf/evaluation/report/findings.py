"""What a benchmark found, in sentences: each says no more than its interval does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..results import SHARED, Cell
from .comparison import Comparison, Difference, Estimate
from .scores import METRICS
from .tables import p_text

RANDOM = "random"
BY_TASK = "_by_task"
# Methods that choose by likeness are compared with a draw at random, what is built upon them with them.
_RETRIEVERS = ("bm25", "sbert", "dense")
_BUILT_UPON = {"recross": "dense"}
# In simulations where query sets decide, the 95 % interval of one task covers the truth in 75 % with two of them, 89 % with five.
_MANY_SETS = 5


class Roles(NamedTuple):
    """Which method of the results is what.

    Attributes:
        base: the model as it was, where it was tested.
        methods: those compared, the base and the ablations not among them.
        floors: answers that need no model.
        variants: ablations by the method that they vary.
        primary: the method that the results are about.
    """

    base: str | None
    methods: list[str]
    floors: list[str]
    variants: dict[str, list[str]]
    primary: str | None

    @property
    def compared(self) -> list[str]:
        """Base and methods."""
        return ([self.base] if self.base else []) + self.methods


def roles_of(cells: Sequence[Cell], primary: str | None = None) -> Roles:
    """Tells the methods apart.

    Args:
        primary: the method that the results are about. By default `recross`, else `dense`, else the last: it must not be chosen
            for its score, or that score is too good.

    Raises:
        ValueError: there is no such method.
    """
    kinds = {"base": [], "method": [], "floor": []}
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
    """Which differences to look at: each method and the base, and of each part of the method what it adds.

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
    """Does retrieval augmentation help here? One sentence, of the primary method and the base."""
    found = _of_pair(differences, roles.primary, roles.base)
    if roles.base is None or roles.primary is None:
        return "Whether retrieval augmentation helps cannot be said: a method or the model as it was are not in the results."
    if found is None or found.overall is None:
        return (
            f"Whether retrieval augmentation helps cannot be said: {roles.primary} and {roles.base} have no finished tasks "
            "in common."
        )
    estimate, alpha = found.overall, 1 - comparison.level
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


def parts(comparison: Comparison, roles: Roles, differences: Sequence[Difference]) -> list[str]:
    """Which part of it? A sentence for each pair that shows a part; p-values are corrected for the number of pairs."""
    sentences, alpha = [], 1 - comparison.level
    for difference in differences:
        what = _part(difference, roles)
        if what is None or difference.overall is None:
            continue
        estimate = difference.overall
        verdict = "shows no effect"
        if not estimate.low <= 0 <= estimate.high:
            is_clear = estimate.corrected_p < alpha
            verdict = (
                ("helps" if is_clear else "may help") if estimate.mean > 0 else ("harms" if is_clear else "may harm")
            )
        sentences.append(
            f"{what} {verdict}: {difference.one} - {difference.other} {_figures(estimate, comparison.level)}, corrected "
            f"p {_relation(estimate.corrected_p)}."
        )
    return sentences


def below_floors(comparison: Comparison, roles: Roles) -> list[str]:
    """For each method whose mean is below what answers without a model get: a sentence.

    Args:
        comparison: with the floors among its methods.
    """
    sentences = []
    floors = {name: summary.mean for name in roles.floors if (summary := comparison.summary(name)) is not None}
    for method in roles.compared:
        summary = comparison.summary(method)
        above = {name: floor for name, floor in floors.items() if summary is not None and summary.mean < floor}
        if above:
            named = ", ".join(f"{name} {floor:.1f}" for name, floor in above.items())
            sentences.append(
                f"{method} is below a floor: its {METRICS[comparison.metric].name} is {summary.mean:.1f}; answers that need no "
                f"model get more ({named})."
            )
    return sentences


def reservations(comparison: Comparison, cells: Sequence[Cell]) -> list[str]:
    """What the intervals do not cover, and what is missing."""
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


def _part(difference: Difference, roles: Roles) -> str | None:
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


def _of_pair(differences: Sequence[Difference], one: str | None, other: str | None) -> Difference | None:
    return next((found for found in differences if (found.one, found.other) == (one, other)), None)


def _figures(estimate: Estimate, level: float) -> str:
    return f"{estimate.mean:+.2f} [{100 * level:g} % interval {estimate.low:+.2f}, {estimate.high:+.2f}]"


def _relation(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _sets(comparison: Comparison) -> str:
    return _number(len(comparison.complete_sets), "query set")
