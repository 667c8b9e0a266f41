"""Results of the paper (Lin et al. 2022, tables 1 to 3): SoftEM of BART0 and T0-3B, far larger models than most here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class PaperRow(NamedTuple):
    """SoftEM in percent by the paper's model, mean of five query sets; None where the paper has no figure."""

    t0_3b: float | None
    bart0: float | None
    random: float
    sbert: float
    dagger: float
    recross: float


TABLE_1: Mapping[str, PaperRow] = {
    "anli_r3": PaperRow(26.00, 30.50, 35.34, 32.64, 36.70, 35.76),
    "hellaswag": PaperRow(34.40, 39.40, 33.84, 30.92, 44.36, 47.28),
    "super_glue-cb": PaperRow(53.93, 39.64, 47.07, 48.00, 44.50, 44.79),
    "super_glue-wic": PaperRow(45.70, 46.70, 41.04, 46.78, 49.90, 50.58),
    "super_glue-wsc.fixed": PaperRow(50.00, 57.88, 52.50, 52.69, 59.27, 61.46),
    "winogrande-winogrande_xl": PaperRow(47.60, 51.10, 52.68, 52.18, 54.60, 55.46),
    "ai2_arc-ARC-Challenge": PaperRow(41.30, 35.70, 33.28, 37.90, 37.78, 38.44),
    "openbookqa-main": PaperRow(38.50, 34.40, 28.72, 33.28, 36.98, 39.58),
    "piqa": PaperRow(45.30, 36.10, 37.00, 38.54, 41.34, 41.42),
    "squad_v2": PaperRow(30.60, 32.40, 29.86, 29.46, 30.26, 30.58),
}
"""SoftEM by target task, as the tasks of `recross` are named here."""

TABLE_1_SPREAD: Mapping[str, PaperRow] = {
    "std": PaperRow(None, None, 2.06, 1.61, 0.68, 0.42),
    "median": PaperRow(41.33, 40.38, 39.93, 40.91, 43.43, 44.31),
    "min": PaperRow(41.33, 40.38, 35.66, 38.28, 42.65, 44.16),
    "max": PaperRow(41.33, 40.38, 40.59, 41.76, 44.51, 45.07),
}
"""Statistics of All@mean over query sets; T0-3B and BART0 have one answer for all of them."""

TABLE_2_TASKS = (
    "hindu_knowledge",
    "known_unknowns",
    "logic_grid_puzzle",
    "movie_dialog_same_or_different",
    "strategyqa",
)
"""The target tasks from BIG-bench."""

TABLE_2_MEANS: Mapping[str, float] = {"T0-3B": 28.78, "BART0": 28.07, "ReCross": 35.23}
"""Mean SoftEM over the tasks from BIG-bench, by the paper's names of the models."""

COLUMNS: Mapping[str, str] = {
    "none": "bart0",
    "random": "random",
    "sbert": "sbert",
    "dense": "dagger",
    "recross": "recross",
}
"""Columns of the paper, by the names that its methods have here."""

TABLE_3: Mapping[str, tuple[float, float | None]] = {
    "recross": (44.53, 0.42),
    "recross |Q|=1": (43.20, 0.83),
    "recross |Q|=8": (43.67, 0.90),
    "recross |Q|=32": (42.52, 1.17),
    "recross |R|=256": (40.80, 0.83),
    "recross |R|=1024": (44.02, 1.43),
    "recross mu=3": (43.92, 0.58),
    "recross mu=4": (43.91, 0.99),
}
"""All@mean and its standard deviation over query sets, by the names that the ablations have here."""
