"""Cards of pipelines and their parts: the upstream model, the index, the reranker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData

from ..core.cards import METRICS, cell, interval_cell, part_rows, render, rows, settings_rows
from ..core.statistics import share_interval

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ..hub.errors import Repository

_NO_DATA = "What it was trained on was not recorded with it."


def pipeline_card(
    repo_id: str, parts: Mapping[str, Repository], *, adaptation: Mapping[str, Any], license: str | None = None
) -> ModelCard:
    """The card of a published pipeline that nothing was adapted in; see [`adapted_model_card`] for one that was.

    Args:
        parts: where its parts are.
        adaptation: the settings that it is adapted with.
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
        name=_name(repo_id),
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
) -> ModelCard:
    """The card of a published upstream model.

    Args:
        pipeline_id: of the pipeline that it is a part of.
        examples: those of its index, if they are at hand.
        results: its evaluation by task, as [`task_results`] gives it, if there was one.
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
            for metric, name in METRICS.items()
        ]
    settings = {"architecture": ", ".join(config.architectures or [config.model_type])}
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "decoder_layers", "num_decoder_layers")
    settings |= {name: getattr(config, name) for name in names if getattr(config, name, None) is not None}
    return render(
        ModelCard,
        "upstream_model.md",
        data,
        repo_id=repo_id,
        name=_name(repo_id),
        auto_class="AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM",
        break_after_input="" if config.is_encoder_decoder else "\\n",
        answer="[0]" if config.is_encoder_decoder else "[0, ids.shape[1] :]",
        tasks=None if examples is None else _task_rows(examples),
        pipeline_id=pipeline_id,
        results=rows(
            (
                task,
                f"{found['n']:,}",
                *(interval_cell(share_interval(found[metric], found["n"])) for metric in METRICS),
            )
            for task, found in tasks.items()
        ),
        mean=""
        if results is None
        else ", ".join(f"{name} {results[f'eval_{metric}']:.2f}" for metric, name in METRICS.items()),
        settings=settings_rows(settings),
    )


def index_card(
    repo_id: str, dataset: Dataset, config: Mapping[str, Any], *, license: str | None = None
) -> DatasetCard:
    """The card of a published index.

    Args:
        dataset: its examples.
        config: of `index.json`.
    """
    data = DatasetCardData(
        license=license,
        tags=["recross", "faiss", "multi-task"],
        task_categories=["text-generation"],
        # The other files are no examples.
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "examples.parquet"}]}],
    )
    encoder = {f"encoder {name}": _short(value) for name, value in config["encoder"].items()}
    shown = {name: config[name] for name in ("factory", "metric", "dimension", "num_examples")}
    return render(
        DatasetCard,
        "index.md",
        data,
        repo_id=repo_id,
        name=_name(repo_id),
        num_examples=f"{len(dataset):,}",
        num_tasks=len(set(dataset["task"][:])),
        tasks=_task_rows(dataset),
        settings=settings_rows(shown | encoder),
    )


def reranker_card(repo_id: str, config: PretrainedConfig, *, license: str | None = None) -> ModelCard:
    """The card of a published reranker.

    Args:
        config: `query_tasks`, the upstream tasks whose queries it was trained on, are in it if [`RerankerTrainer`] made it.
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
        name=_name(repo_id),
        training_data=f"Pairs mined for queries of these upstream tasks: {tasks}." if tasks else _NO_DATA,
        settings=settings_rows({name: value for name, value in settings.items() if value is not None}),
    )


def _name(repo_id: str) -> str:
    return cell(repo_id.rpartition("/")[2])


def _task_rows(examples: Dataset) -> str:
    """Task, examples, share and templates; the largest task first."""
    columns = [name for name in ("task", "template") if name in examples.column_names]
    counts = Counter(zip(*(examples[name][:] for name in columns), strict=True))
    of_task: Counter[str] = Counter()
    templates: Counter[str] = Counter()
    for (task, *template), count in counts.items():
        of_task[task] += count
        templates[task] += bool(template and template[0])
    return rows(
        (task, f"{count:,}", f"{100 * count / len(examples):.1f} %", templates[task] or "not named")
        for task, count in sorted(of_task.items(), key=lambda item: (-item[1], item[0]))
    )


def _short(value: Any) -> Any:
    """Hashes are cut."""
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else value
