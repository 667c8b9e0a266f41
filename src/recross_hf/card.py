"""Cards: of adapted models, of mined supervision, of upstream data, and of what is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData

from . import __version__
from .arguments import AdaptationArguments, MixtureArguments
from .report import task_shares

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from .architectures import Architecture
    from .gate import GateVerdict
    from .hub import Repository

TEMPLATE = Path(__file__).with_name("card_template.md")
SUPERVISION_TEMPLATE = Path(__file__).with_name("supervision_card_template.md")
MIXTURE_TEMPLATE = Path(__file__).with_name("mixture_card_template.md")

_SETTINGS = (
    "num_retrieved",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "label_smoothing_factor",
    "max_input_length",
    "max_target_length",
    "seed",
)


def adapted_model_card(
    *,
    model_name: str,
    base_model: str,
    args: AdaptationArguments,
    retrieved: Dataset,
    num_queries: int,
    selects: bool,
    architecture: Architecture,
    is_peft: bool,
    scores: dict[str, dict[str, float]],
    gate: GateVerdict | None = None,
) -> ModelCard:
    """The card of a model that [`RetrievalAugmentedAdapter`] made.

    Args:
        base_model: the upstream model's name on the Hub, or its path.
        selects: whether the examples were chosen among more (`args.upsampling_ratio`, `args.select_by`).
        scores: SoftEM and exact match in percent by the name of the evaluation, e.g. `{"base": {...}, "adapted": {...}}`.
        gate: what the safety gate found, if there was one.
    """
    is_local = Path(base_model).exists() or not base_model
    settings = (*_SETTINGS, "upsampling_ratio", "select_by") if selects else _SETTINGS
    return ModelCard.from_template(
        ModelCardData(
            base_model=None if is_local else base_model,
            library_name="peft" if is_peft else "transformers",
            tags=["recross", "retrieval-augmentation", "unsupervised-adaptation"],
        ),
        template_path=str(TEMPLATE),
        model_name=model_name,
        # A path of the machine that trained it is of no use to a reader.
        base_model=f"`{Path(base_model).name or 'a local model'}`"
        if is_local
        else f"[{base_model}](https://huggingface.co/{base_model})",
        num_queries=num_queries,
        num_retrieved=len(retrieved),
        scores="\n".join(
            f"| {name} | {values['soft_em']:.2f} | {values['exact_match']:.2f} |" for name, values in scores.items()
        ),
        gate=None if gate is None else {"kept": gate.kept, "reason": _cell(gate.reason)},
        shares="\n".join(f"| {task} | {100 * share:.1f} % |" for task, share in task_shares(retrieved).items()),
        usage=(_USAGE_PEFT if is_peft else _USAGE).format(
            auto_class=architecture.auto_class.__name__, generate=architecture.usage
        ),
        settings="\n".join(f"| `{name}` | {getattr(args, name)} |" for name in settings),
        version=__version__,
    )


def supervision_card(*, settings: dict[str, Any], judge: Callable[..., Any], summary: dict[str, Any]) -> DatasetCard:
    """The card of mined pairs.

    Args:
        settings: of `supervision.json`.
        judge: how candidates were judged; the first line of its docstring is quoted.
        summary: of [`summarize_supervision`], with `num_pairs`.
    """
    figures = {name: value for name, value in summary.items() if isinstance(value, int | float)}
    return DatasetCard.from_template(
        DatasetCardData(tags=["recross", "distant-supervision", "reranking"], task_categories=["text-ranking"]),
        template_path=str(SUPERVISION_TEMPLATE),
        figures="\n".join(
            f"| {name.replace('_', ' ')} | {value:.4f} |"
            if isinstance(value, float)
            else f"| {name.replace('_', ' ')} | {value} |"
            for name, value in figures.items()
        ),
        skipped="\n".join(f"| skipped: {reason} | {count} |" for reason, count in summary["skipped"].items()),
        task_pairs="\n".join(
            f"| {pair['query_task']} | {pair['candidate_task']} | {pair['num_candidates']} | {pair['utility']:+.4f} |"
            for pair in summary["task_pairs"]
        ),
        settings="\n".join(f"| `{name}` | {_short(value)} |" for name, value in settings.items()),
        judge=(judge.__doc__ or judge.__name__).splitlines()[0],
        version=__version__,
    )


def mixture_card(
    reports: Mapping[str, dict[str, Any]], *, failed: Sequence[str] = (), args: MixtureArguments, num_target_texts: int
) -> DatasetCard:
    """The card of upstream data.

    Args:
        reports: what [`prepare_mixture`] says of each task.
        failed: the tasks that could not be had.
        num_target_texts: how many texts of target tasks the examples were compared with.
    """
    overlap = [
        f"| {task} | {what} | {count} |"
        for task, report in reports.items()
        for what, count in report["overlap"].items()
    ]
    dropped = [
        f"| {task} | {why} | {count:,} |"
        for task, report in reports.items()
        for why, count in report["dropped"].items()
    ]
    dropped += [f"| {task} | {_cell(note)} | |" for task, report in reports.items() for note in report["notes"]]
    dropped += [f"| {task} | all of it: its data or templates could not be had | |" for task in failed]
    templates = [
        f"- {task}: "
        + ", ".join(f"{name or 'none'} ({count:,})" for name, count in report["templates"].items())
        + "".join(f"; left out: {name} ({problem})" for name, problem in report["templates_left_out"].items())
        for task, report in reports.items()
    ]
    splits = (
        'data_files:\n  - split: train\n    path: "{0}/train-*.parquet"\n  - split: dev\n    path: "{0}/dev-*.parquet"'
    )
    only_train = 'data_files:\n  - split: train\n    path: "{0}/train-*.parquet"'
    any_dev = any(report["dev"] for report in reports.values())
    configs = ["- config_name: default\n  " + (splits if any_dev else only_train).format("*").replace("\n", "\n  ")]
    configs += [
        f'- config_name: "{task}"\n  ' + (splits if report["dev"] else only_train).format(task).replace("\n", "\n  ")
        for task, report in reports.items()
    ]
    return DatasetCard.from_template(
        DatasetCardData(tags=["recross", "multi-task", "prompts"], task_categories=["text-generation"]),
        template_path=str(MIXTURE_TEMPLATE),
        configs="\n".join(configs),
        num_tasks=len(reports),
        num_examples=f"{sum(report['train'] for report in reports.values()):,}",
        decontaminated=" and of rows that they share with target tasks"
        if num_target_texts and args.on_overlap == "drop"
        else "",
        first_task=next(iter(reports), "task"),
        tasks="\n".join(
            f"| {task} | {_cell(report['source'])} | {report['license'] or 'not named'} | {report['rows']:,} | "
            f"{len(report['templates'])} | {report['train']:,} | {report['dev']:,} |"
            for task, report in reports.items()
        ),
        dropped="\n".join(dropped) or "| | nothing | |",
        num_target_texts=f"{num_target_texts:,}",
        ngram_size=args.ngram_size,
        overlap="\n".join(["| task | overlap | examples |", "|---|---|---|", *overlap]) if overlap else "None found.",
        templates="\n".join(templates),
        settings="\n".join(f"| `{name}` | {value} |" for name, value in asdict(args).items()),
        version=__version__,
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _short(value: Any) -> str:
    """Hashes are cut, lists joined."""
    if isinstance(value, list):
        return ", ".join(map(_short, value)) or "none"
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)


_USAGE = """\
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("path/or/name")
tokenizer = AutoTokenizer.from_pretrained("path/or/name")
{generate}"""

_USAGE_PEFT = """\
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

model = PeftModel.from_pretrained({auto_class}.from_pretrained("the/upstream-model"), "path/or/name")
tokenizer = AutoTokenizer.from_pretrained("path/or/name")
{generate}"""


# ---- what is published -------------------------------------------------------------------------------------------------


def pipeline_card(
    repo_id: str,
    parts: Mapping[str, Repository],
    *,
    adaptation: Mapping[str, Any],
    retrieved: Dataset | None = None,
    adapted_kind: str | None = None,
) -> ModelCard:
    """The card of a published pipeline.

    Args:
        parts: where its other parts are.
        adaptation: the settings that it is adapted with.
        retrieved: what an adapted one learned from.
        adapted_kind: "transformers" for an adapted model, "peft" for an adapter, None where nothing was adapted.
    """
    upstream = parts["upstream_model"].repo_id
    data = ModelCardData(
        base_model=upstream,
        base_model_relation=None if adapted_kind is None else {"peft": "adapter"}.get(adapted_kind, "finetune"),
        library_name=adapted_kind or "recross_hf",
        pipeline_tag="text-generation",
        datasets=[parts["index"].repo_id],
        tags=["recross", "retrieval-augmentation", "unsupervised-adaptation"],
    )
    places = "\n".join(f"| {name} | {_link(where)} | `{where.revision}` |" for name, where in parts.items())
    settings = "\n".join(f"| `{name}` | {value} |" for name, value in adaptation.items())
    learned = ""
    if retrieved is not None:
        shares = "\n".join(f"| {task} | {100 * share:.1f} % |" for task, share in task_shares(retrieved).items())
        learned = f"""
## What it learned from

`retrieved.parquet` lists {len(retrieved)} upstream examples with their ids, ranks and distances.

| upstream task | share of the retrieved examples |
|---|---|
{shares}
"""
    return ModelCard(
        f"""---
{data}
---

# {repo_id.rpartition("/")[2]}

A pipeline of `recross_hf` {__version__}: a multi-task language model that adapts itself to an unseen task from a handful of
unlabelled inputs, by retrieval augmentation (ReCross, Lin et al. 2022).

```python
from recross_hf import ReCrossPipeline

pipeline = ReCrossPipeline.from_pretrained("{repo_id}")
pipeline("an input of the task")
```

## Parts

| part | repository | commit |
|---|---|---|
{places}
{learned}
## Settings of an adaptation

| setting | value |
|---|---|
{settings}
"""
    )


def model_repo_card(repo_id: str, config: PretrainedConfig) -> ModelCard:
    """The card of a published upstream model."""
    data = ModelCardData(library_name="transformers", pipeline_tag="text-generation", tags=["recross"])
    auto_class = "AutoModelForSeq2SeqLM" if config.is_encoder_decoder else "AutoModelForCausalLM"
    return ModelCard(
        f"""---
{data}
---

# {repo_id.rpartition("/")[2]}

The upstream model of a `recross_hf` {__version__} pipeline ({config.model_type}), trained on examples of many tasks.

```python
from transformers import {auto_class}, AutoTokenizer

model = {auto_class}.from_pretrained("{repo_id}")
tokenizer = AutoTokenizer.from_pretrained("{repo_id}")
```
"""
    )


def index_card(repo_id: str, dataset: Dataset, config: Mapping[str, Any]) -> DatasetCard:
    """The card of a published index.

    Args:
        dataset: its examples.
        config: of `index.json`.
    """
    data = DatasetCardData(
        tags=["recross", "faiss", "multi-task"],
        task_categories=["text-generation"],
        # The other files are no examples.
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "examples.parquet"}]}],
    )
    shares = "\n".join(f"| {task} | {100 * share:.1f} % |" for task, share in task_shares(dataset).items())
    return DatasetCard(
        f"""---
{data}
---

# {repo_id.rpartition("/")[2]}

{len(dataset):,} upstream examples and the FAISS index of their vectors ({config["factory"]}, {config["metric"]}, {config["dimension"]}
dimensions), of a `recross_hf` {__version__} pipeline.

```python
from datasets import load_dataset
from huggingface_hub import hf_hub_download

examples = load_dataset("{repo_id}", split="train")
examples.load_faiss_index("embeddings", hf_hub_download("{repo_id}", "index.faiss", repo_type="dataset"))
```

| task | share of the examples |
|---|---|
{shares}
"""
    )


def reranker_card(repo_id: str, config: PretrainedConfig) -> ModelCard:
    """The card of a published reranker."""
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="text-ranking",
        tags=["recross", "cross-encoder", "reranker"],
    )
    return ModelCard(
        f"""---
{data}
---

# {repo_id.rpartition("/")[2]}

A cross-encoder ({config.model_type}) that tells which upstream examples help on which inputs, of `recross_hf` {__version__}.

```python
from recross_hf import CrossEncoderReranker

reranker = CrossEncoderReranker.from_pretrained("{repo_id}")
reranker.rank(["an input"], ["a candidate", "another"])
```
"""
    )


def _link(where: Repository) -> str:
    prefix = {"model": "", "dataset": "datasets/"}[where.repo_type]
    return f"[{where.repo_id}](https://huggingface.co/{prefix}{where.repo_id})"
