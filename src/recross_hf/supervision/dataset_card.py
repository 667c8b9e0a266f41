"""The card of mined supervision."""

from __future__ import annotations

from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..core.cards import render, rows, settings_rows
from ..core.hashing import function_name
from .utility import UtilityEstimator


def supervision_card(
    *, settings: dict[str, Any], utility_estimator: UtilityEstimator, summary: dict[str, Any]
) -> DatasetCard:
    """The card of mined pairs.

    Args:
        settings: Settings of the mining, as `supervision.json` has them.
        utility_estimator: Utility estimator of the mining; the card quotes the first line of its docstring.
        summary: Summary of [`summarize_supervision`], with `num_pairs`.
    """
    figures = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    return render(
        DatasetCard,
        "supervision.md",
        DatasetCardData(
            tags=["recross", "distant-supervision", "reranking"],
            task_categories=["text-ranking"],
            configs=[{"config_name": "default", "data_files": "pairs.parquet"}],
        ),
        figures=rows(
            (name.replace("_", " "), f"{value:.4f}" if isinstance(value, float) else value)
            for name, value in figures.items()
        ),
        skipped=rows((f"skipped: {reason}", count) for reason, count in summary["skipped"].items()),
        task_pairs=rows(
            (pair["query_task"], pair["candidate_task"], pair["num_candidates"], f"{pair['utility']:+.4f}")
            for pair in summary["task_pairs"]
        ),
        settings=settings_rows(settings),
        estimator=(utility_estimator.__doc__ or function_name(utility_estimator)).splitlines()[0],
    )
