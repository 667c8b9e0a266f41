"""The card of mined supervision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from ..core.cards import render, rows, settings_rows


def supervision_card(*, settings: dict[str, Any], judge: Callable[..., Any], summary: dict[str, Any]) -> DatasetCard:
    """The card of mined pairs.

    Args:
        settings: of `supervision.json`.
        judge: how candidates were judged; the first line of its docstring is quoted.
        summary: of [`summarize_supervision`], with `num_pairs`.
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
        judge=(judge.__doc__ or judge.__name__).splitlines()[0],
    )
