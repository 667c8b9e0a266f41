"""The card of a reranker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from huggingface_hub import ModelCard, ModelCardData

from ..core.cards import NO_DATA, cell, render, repository_name, settings_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def reranker_card(repo_id: str, config: PretrainedConfig, *, license: str | None = None) -> ModelCard:
    """The card of a published reranker.

    Args:
        repo_id: Repository that the reranker is published in.
        config: Configuration of its model; if [`RerankerTrainer`] made it, `query_tasks` are the upstream tasks whose queries
            it was trained on.
        license: Licence of the weights, such as apache-2.0.
    """
    data = ModelCardData(
        license=license,
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["recross", "cross-encoder", "reranker"],
    )
    settings = {
        "architecture": ", ".join(config.architectures or [config.model_type]),
        "vocab_size": config.vocab_size,
        "hidden_size": getattr(config, "hidden_size", None),
        "num_hidden_layers": getattr(config, "num_hidden_layers", None),
        "include_answers": getattr(config, "include_answers", False),
    }
    query_tasks = getattr(config, "query_tasks", None)
    tasks = ", ".join(map(cell, query_tasks)) if isinstance(query_tasks, list) else ""
    return render(
        ModelCard,
        "reranker.md",
        data,
        repo_id=repo_id,
        name=repository_name(repo_id),
        training_data=f"Pairs mined for queries of these upstream tasks: {tasks}." if tasks else NO_DATA,
        settings=settings_rows({name: value for name, value in settings.items() if value is not None}),
    )
