"""The record of an adaptation: what was done, and how it went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .safety_gate import GateVerdict

RETRIEVED_FILE = "retrieved.parquet"


@dataclass(frozen=True)
class Evaluation:
    """SoftEM and exact match on labelled examples, in percent.

    Args:
        tasks: that the examples are of.
        is_adapted: whether the model had been adapted.
        is_mean: whether it is the unweighted mean of several tasks, which has no interval here.
    """

    soft_em: float
    exact_match: float
    n: int
    tasks: Sequence[str]
    is_adapted: bool
    is_mean: bool = False


@dataclass(frozen=True)
class Adaptation:
    """How a model was adapted.

    Args:
        num_queries: None where that is not known any more.
        settings: by their names in [`AdaptationArguments`].
        evaluations: by the prefix of their metrics.
        gate: what the safety gate found, if there was one.
    """

    num_queries: int | None
    settings: Mapping[str, Any]
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    gate: GateVerdict | None = None
