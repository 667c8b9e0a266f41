"""Cards of adapted models: what they learned from, how they do, how to load them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..core.cards import cell, interval_cell, model_link, render, rows, settings_rows, share_rows
from ..core.metrics import CARD_METRICS
from ..core.statistics import share_interval
from ..hub.repository import Repository, is_repo_id, part_rows
from .record import Adaptation, Evaluation
from .results import form_rows, task_shares

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from ..models.base import Architecture

_SHOWN_EXAMPLES = 20
_SHOWN_COLUMNS = ("rank", "id", "task", "distance", "score")


# The card is one template, which is filled in one place: its values in the order in which it names them.
def adapted_model_card(
    name: str,
    *,
    title: str | None = None,
    base_model: str,
    base_revision: str | None = None,
    gguf_file: str | None = None,
    beneath: Repository | None = None,
    adaptation: Adaptation,
    retrieved: Dataset | None,
    architecture: Architecture,
    processing_class: PreTrainedTokenizerBase,
    is_peft: bool,
    parts: Mapping[str, Repository] | None = None,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    tags: Sequence[str] = (),
    datasets: Sequence[str] = (),
    eval_task: str = "text-generation",
    eval_dataset: str | None = None,
    eval_dataset_type: str | None = None,
    eval_dataset_config: str | None = None,
) -> ModelCard:
    """The card of an adapted model, alone or in a published pipeline.

    Args:
        name: Name of its repository, or of its folder.
        title: Title of the card; the last part of `name` by default.
        base_model: Name of the upstream model on the Hub, or its path.
        base_revision: Commit of the upstream model that was adapted; None where that is not known, or `base_model` is a path.
        gguf_file: The upstream model's GGUF file, where an adapter is on one.
        beneath: Base of the upstream model at its commit, where that is an adapter and was merged before this one was trained.
        adaptation: Record of the adaptation.
        retrieved: Examples that it learned from; None where they are not known any more.
        architecture: The kind of model, which says how it is loaded.
        processing_class: Tokenizer of the model, which says how it is asked.
        is_peft: Whether it is an adapter.
        parts: Repositories of the pipeline that it is in, by the names of the parts.
        license: License of the model.
        language: Language of the task, or several.
        tags: Tags beside those that every adapted model has.
        datasets: Names on the Hub of data sets that belong to it.
        eval_task: Type of task of the results.
        eval_dataset: Name, in the results, of the data set that was evaluated on; its tasks by default.
        eval_dataset_type: Name of that data set on the Hub.
        eval_dataset_config: Configuration of that data set.
    """
    is_local = not base_model or Path(base_model).exists() or not is_repo_id(base_model)
    base_name = local_name(base_model) if is_local else base_model
    evaluations = adaptation.evaluations
    places = dict(parts or {})
    title = title or name.rpartition("/")[2]
    data = ModelCardData(
        license=license,
        language=list(language) if language is not None and not isinstance(language, str) else language,
        base_model=None if is_local else base_model,
        base_model_relation=None if is_local else ("adapter" if is_peft else "finetune"),
        library_name="peft" if is_peft else "transformers",
        pipeline_tag="text-generation",
        datasets=[
            *dict.fromkeys([*datasets, *(place.repo_id for place in places.values() if place.repo_type == "dataset")])
        ]
        or None,
        tags=[*dict.fromkeys(["recross", "retrieval-augmentation", "unsupervised-adaptation", *tags])],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type=eval_task,
                dataset_type=eval_dataset_type or eval_dataset or _listed(evaluation.tasks),
                dataset_name=eval_dataset or _listed(evaluation.tasks),
                dataset_config=eval_dataset_config,
                metric_type=metric,
                metric_name=metric_name,
                metric_value=round(getattr(evaluation, metric), 2),
            )
            for evaluation in evaluations.values()
            if evaluation.is_adapted and not evaluation.is_mean
            for metric, metric_name in CARD_METRICS.items()
        ]
        or None,
    )
    if not data.eval_results:
        del data.model_name  # it belongs to results
    first = None if retrieved is None else retrieved.select(range(min(_SHOWN_EXAMPLES, len(retrieved))))
    columns = [] if first is None else [name for name in _SHOWN_COLUMNS if name in first.column_names]
    return render(
        ModelCard,
        "adapted_model.md",
        data,
        name=cell(title),
        # A path of the machine that trained it is of no use to a reader.
        base_model=f"`{base_name}`" if is_local else model_link(base_model),
        num_queries=adaptation.num_queries,
        num_retrieved=None if retrieved is None else len(retrieved),
        evaluations=rows(_evaluation_row(prefix, evaluation) for prefix, evaluation in evaluations.items()),
        gate=None
        if adaptation.gate is None
        else {
            "kept": adaptation.gate.kept,
            "level": adaptation.gate.level,
            "reason": cell(adaptation.gate.reason),
            "form": rows(form_rows(asdict(adaptation.gate))),
        },
        shares=None if retrieved is None else share_rows(task_shares(retrieved)),
        num_shown=None if first is None else len(first),
        shown_header=f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}",
        shown=None if first is None else rows([_number(row[name]) for name in columns] for row in first),
        parts=part_rows(places),
        repo_id=name if places else None,
        usage=loading_code(
            name,
            base_name,
            None if is_local else base_revision,
            architecture,
            processing_class,
            is_peft,
            adaptation.settings,
            gguf_file=gguf_file,
            beneath=beneath,
            remark="`revision` names a commit of this repository, too; its newest is loaded here.",
        ),
        settings=settings_rows(
            {**adaptation.settings, **{f"decoding: {name}": value for name, value in adaptation.decoding.items()}}
        ),
    )


def local_name(path: str) -> str:
    """The name of a folder; the models of pipelines are all called alike, so that theirs has the pipeline's folder, too."""
    folder = Path(path).resolve()
    if not path:
        return "a local model"
    is_part = folder.name in ("upstream_model", "base_model")
    return f"{folder.parent.name}/{folder.name}" if is_part else folder.name


def _evaluation_row(prefix: str, evaluation: Evaluation) -> list[str]:
    model = "adapted" if evaluation.is_adapted else "upstream"
    if prefix != {"adapted": "adapted", "upstream": "base"}[model]:
        model += f" ({prefix})"
    row = [model, _listed(evaluation.tasks), f"{evaluation.n:,}"]
    for metric in CARD_METRICS:
        value = getattr(evaluation, metric)
        row.append(f"{value:.2f}" if evaluation.is_mean else interval_cell(share_interval(value, evaluation.n)))
    return row


def _listed(tasks: Sequence[str]) -> str:
    if not tasks:
        return "not named"
    return ", ".join(tasks) if len(tasks) <= 3 else f"{len(tasks)} tasks"


def _number(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def loading_code(
    name: str,
    base_name: str,
    base_revision: str | None,
    architecture: Architecture,
    processing_class: PreTrainedTokenizerBase,
    is_peft: bool,
    settings: Mapping[str, Any],
    *,
    gguf_file: str | None = None,
    beneath: Repository | None = None,
    remark: str | None = None,
) -> str:
    """Python with which the plain tools load an adapted model, and answer as it was evaluated.

    Args:
        name: Name of its repository, or its folder.
        base_name: Name or folder of the upstream model, which an adapter needs.
        base_revision: Commit of the upstream model.
        architecture: The kind of model.
        processing_class: Tokenizer of the model.
        is_peft: Whether it is an adapter.
        settings: Settings of the adaptation.
        gguf_file: The upstream model's GGUF file, where an adapter is on one.
        beneath: Base of the upstream model, where that is an adapter which was merged before this one was trained.
        remark: Comment above the line that loads it.
    """
    auto_class = architecture.auto_class.__name__
    lines = [f"from transformers import {auto_class}, AutoTokenizer", ""]
    # An adapter on a base that was published again gives other answers, without a word.
    pinned = f", revision={json.dumps(base_revision)}" if is_peft and base_revision else ""
    pinned += f", gguf_file={json.dumps(gguf_file)}" if is_peft and gguf_file else ""
    loaded = f"{auto_class}.from_pretrained({json.dumps(base_name if is_peft else name)}{pinned})"
    if is_peft and beneath is not None:
        at = "" if beneath.revision is None else f", revision={json.dumps(beneath.revision)}"
        # The adapter was trained on the sum in float32.
        below = f'{auto_class}.from_pretrained({json.dumps(beneath.repo_id)}{at}, dtype="float32")'
        merged = f"base = PeftModel.from_pretrained({below}, {json.dumps(base_name)}{pinned}).merge_and_unload()"
        lines, loaded = [*lines, merged], "base"
    if is_peft:
        lines.insert(0, "from peft import PeftModel")
        loaded = f"PeftModel.from_pretrained({loaded}, {json.dumps(name)})"
    told = {"max_new_tokens": settings.get("max_target_length"), "num_beams": settings.get("generation_num_beams")}
    arguments = "".join(f", {argument}={value}" for argument, value in told.items() if value is not None)
    lines += [
        *([] if remark is None else [f"# {remark}"]),
        f"model = {loaded}",
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(name)})",
        architecture.usage(processing_class, arguments),
    ]
    return "\n".join(lines)


def as_list(values: str | list[str] | None) -> list[str]:
    """One value or several, as a list."""
    return [values] if isinstance(values, str) else list(values or [])


def first_of(values: str | list[str] | None) -> str | None:
    """The first of some values, if there is one."""
    return next(iter(as_list(values)), None)
