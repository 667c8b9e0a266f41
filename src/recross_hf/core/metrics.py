"""What an answer is measured by: the names and units of scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Metric(NamedTuple):
    """A score of answers, as tables and pictures name it."""

    name: str
    is_percentage: bool = True

    @property
    def label(self) -> str:
        """The name with its unit."""
        return f"{self.name} (%)" if self.is_percentage else f"{self.name} (words)"


METRICS: Mapping[str, Metric] = {
    "exact_match": Metric("exact match"),
    "soft_em": Metric("SoftEM"),
    "rank_correct": Metric("rank classification"),
    "in_answers": Metric("share in answer set"),
    "num_words": Metric("mean length", is_percentage=False),
}
"""All metrics by the column that holds them; of the first three, more is better."""

CARD_METRICS: Mapping[str, str] = {name: METRICS[name].name for name in ("soft_em", "exact_match")}
"""Names of the metrics that every evaluation has and cards list, by column."""
