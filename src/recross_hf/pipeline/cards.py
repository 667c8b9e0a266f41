"""Cards of pipelines and their upstream models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..adaptation.model_card import loading_code, local_name
from ..core.cards import interval_cell, model_link, render, repository_name, rows, settings_rows, task_rows
from ..core.metrics import CARD_METRICS
from ..core.statistics import share_interval
from ..hub.repository import is_repo_id, part_rows

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from ..hub.repository import Repository
    from ..models.base import Architecture


def pipeline_card(
    repo_id: str, parts: Mapping[str, Repository], *, adaptation: Mapping[str, Any], license: str | None = None
) -> ModelCard:
    """The card of a published pipeline that was not adapted; [`adapted_model_card`] makes the card of one that was.

    Args:
        repo_id: Name of the pipeline's repository.
        parts: Repositories of the parts, by part.
        adaptation: Settings that the pipeline is adapted with.
        license: License of the pipeline, such as apache-2.0.
    """
    data = ModelCardData(
        license=license,
        base_model=parts["upstream_model"].repo_id,
        library_name="recross_hf",
        pipeline_tag="text-generation",
        datasets=[parts["index"].repo_id],
        tags=["recross", "retrieval-augmentation", "unsupervised-adaptation"],
    )
    return render(
        ModelCard,
        "pipeline.md",
        data,
        repo_id=repo_id,
        name=repository_name(repo_id),
        parts=part_rows(parts),
        has_reranker="reranker" in parts,
        settings=settings_rows(adaptation),
    )


def upstream_model_card(
    repo_id: str,
    config: PretrainedConfig,
    *,
    pipeline_id: str | None = None,
    examples: Dataset | None = None,
    results: Mapping[str, Any] | None = None,
    license: str | None = None,
    max_new_tokens: int | None = None,
) -> ModelCard:
    """The card of a published upstream model.

    Args:
        repo_id: Name of the model's repository.
        config: Configuration of the model.
        pipeline_id: Name of the pipeline that the model is a part of.
        examples: Examples of the pipeline's index, if they are at hand.
        results: Evaluation of the model by task ([`task_results`]), if there was one.
        license: License of the model, such as apache-2.0.
        max_new_tokens: Tokens of the longest answer in the pipeline; `generate` alone stops where the model's own
            configuration says.
    """
    tasks = {} if results is None else results["tasks"]
    data = ModelCardData(
        license=license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["recross", "multi-task"],
    )
    if tasks:
        data.model_name = repo_id.rpartition("/")[2]
        data.eval_results = [
            EvalResult(
                task_type="text-generation",
                dataset_type=task,
                dataset_name=task,
                metric_type=metric,
                metric_name=name,
                metric_value=round(found[metric], 2),
            )
            for task, found in tasks.items()
            for metric, name in CARD_METRICS.items()
        ]
    settings = {"architecture": ", ".join(config.architectures or [config.model_type])}
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "decoder_layers", "num_decoder_layers")
    settings |= {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}
    return render(
        ModelCard,
        "upstream_model.md",
        data,
        repo_id=repo_id,
        name=repository_name(repo_id),
        auto_class="AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM",
        break_after_input="" if config.is_encoder_decoder else "\\n",
        answer="[0]" if config.is_encoder_decoder else "[0, ids.shape[1] :]",
        max_new_tokens=max_new_tokens,
        tasks=None if examples is None else task_rows(examples),
        pipeline_id=pipeline_id,
        results=rows(
            (
                task,
                f"{found['n']:,}",
                *(interval_cell(share_interval(found[metric], found["n"])) for metric in CARD_METRICS),
            )
            for task, found in tasks.items()
        ),
        mean=""
        if results is None
        else ", ".join(f"{name} {results[f'eval_{metric}']:.2f}" for metric, name in CARD_METRICS.items()),
        settings=settings_rows(settings),
    )


def upstream_adapter_card(
    name: str,
    *,
    base_model: str,
    base_revision: str | None,
    architecture: Architecture,
    processing_class: PreTrainedTokenizerBase,
    settings: Mapping[str, Any],
    gguf_file: str | None = None,
    pipeline_id: str | None = None,
    examples: Dataset | None = None,
    license: str | None = None,
    max_new_tokens: int | None = None,
) -> ModelCard:
    """The card of an upstream model that is a LoRA adapter on a base.

    Args:
        name: Name of the adapter's repository, or its folder.
        base_model: Name of the base on the Hub, or its path.
        base_revision: Commit of the base; None where that is not known, or `base_model` is a path.
        architecture: The kind of model, which says how it is loaded.
        processing_class: Tokenizer of the model, which says how it is asked.
        settings: Settings of the adapter, such as its rank.
        gguf_file: The base's GGUF file, where it is one.
        pipeline_id: Name of the pipeline that it is a part of.
        examples: Examples that it was trained on, or those of the pipeline's index.
        license: License of the adapter, such as apache-2.0.
        max_new_tokens: Tokens of the longest answer.
    """
    is_local = not base_model or Path(base_model).exists() or not is_repo_id(base_model)
    base_name = local_name(base_model) if is_local else base_model
    revision = None if is_local else base_revision
    data = ModelCardData(
        license=license,
        base_model=None if is_local else base_model,
        base_model_relation=None if is_local else "adapter",
        library_name="peft",
        pipeline_tag="text-generation",
        tags=["recross", "multi-task", "lora"],
    )
    return render(
        ModelCard,
        "upstream_adapter.md",
        data,
        name=repository_name(name),
        base_model=f"`{base_name}`" if is_local else model_link(base_model),
        base_revision=revision,
        usage=loading_code(
            name,
            base_name,
            revision,
            architecture,
            processing_class,
            True,
            {"max_target_length": max_new_tokens},
            gguf_file=gguf_file,
        ),
        tasks=None if examples is None else task_rows(examples),
        pipeline_id=pipeline_id,
        settings=settings_rows(settings),
    )


def lora_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of a LoRA adapter, by its configuration as a dictionary."""
    targets = config["target_modules"]
    shown = targets if isinstance(targets, str) else sorted(targets or ())
    return {
        "r": config["r"],
        "lora_alpha": config["lora_alpha"],
        "lora_dropout": config["lora_dropout"],
        "target_modules": shown,
    }


def base_model_card(repo_id: str, config: PretrainedConfig, pipeline_id: str, adapter_id: str) -> ModelCard:
    """The card of the base below an upstream adapter, where it is published with its pipeline.

    Args:
        repo_id: Name of the base's repository.
        config: Configuration of the base.
        pipeline_id: Name of the pipeline.
        adapter_id: Name of the adapter's repository.
    """
    data = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["recross"])
    return render(
        ModelCard,
        "base_model.md",
        data,
        repo_id=repo_id,
        name=repository_name(repo_id),
        pipeline_id=pipeline_id,
        adapter_id=adapter_id,
        auto_class="AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM",
        settings=settings_rows({"architecture": ", ".join(config.architectures or [config.model_type])}),
    )


def encoder_card(repo_id: str, pipeline_id: str, prompt: str) -> ModelCard:
    """The card of an index's encoder of its own, where it is published with its pipeline.

    Args:
        repo_id: Name of the encoder's repository.
        pipeline_id: Name of the pipeline.
        prompt: Text before each input.
    """
    data = ModelCardData(library_name="sentence-transformers", pipeline_tag="sentence-similarity", tags=["recross"])
    name = repository_name(repo_id)
    code = {"prompt": json.dumps(prompt)}
    return render(ModelCard, "encoder.md", data, repo_id=repo_id, name=name, pipeline_id=pipeline_id, **code)
