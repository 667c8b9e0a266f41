"""The card of an index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from huggingface_hub import DatasetCard, DatasetCardData

from ..core.cards import render, repository_name, settings_rows, task_rows


def index_card(
    repo_id: str, dataset: Dataset, config: Mapping[str, Any], *, license: str | None = None
) -> DatasetCard:
    """The card of a published index.

    Args:
        repo_id: Name of the data set on the Hub.
        dataset: Examples of the index.
        config: Content of `index.json`.
        license: License, such as apache-2.0.
    """
    data = DatasetCardData(
        license=license,
        tags=["recross", "faiss", "multi-task"],
        task_categories=["text-generation"],
        # The other files are no examples.
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "examples.parquet"}]}],
    )
    encoder = {f"encoder {name}": value for name, value in config["encoder"].items()}
    shown = {name: config[name] for name in ("factory", "metric", "dimension", "num_examples")}
    return render(
        DatasetCard,
        "index.md",
        data,
        repo_id=repo_id,
        name=repository_name(repo_id),
        num_examples=f"{len(dataset):,}",
        num_tasks=len(set(dataset["task"][:])),
        tasks=task_rows(dataset),
        settings=settings_rows(shown | encoder),
    )
