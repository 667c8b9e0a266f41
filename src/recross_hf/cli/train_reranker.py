"""`recross train-reranker`: train a reranker on mined pairs, and put it into a pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from .. import RerankerTrainer, RerankerTrainingArguments, split_by_task
from ..core.distributed import end_process_group, process_state
from ..core.files import read_parquet, write_json
from ..core.output_folders import check_apart, check_apart_from_files, check_not_of_others
from ..pipeline.saving import save_reranker
from ..planning.training import plan_training
from ..reranking.evaluation import format_reranker_metrics
from ..reranking.losses import binary, pairwise, regression
from .bars import use_bars
from .console import is_quiet, show
from .outputs import OVERWRITE, make_way
from .parser import CommandParser

LOSSES = {"binary": binary, "regression": regression, "pairwise": pairwise}


ABOUT = (
    "Train a reranker on mined pairs, and put it into a pipeline. Whole tasks are held out: how well it tells there what helps is printed "
    "beside the dense retriever's own order and chance."
)
GROUPS = {
    "What to learn from, and where it goes": ["pairs", "output_dir", "add_to_pipeline", "overwrite"],
    "How": [
        "model_name_or_path",
        "loss",
        "num_dev_tasks",
        "dev_tasks",
        "learning_rate",
        "max_steps",
        "num_train_epochs",
    ],
    "Before": ["dry_run"],
}

NEEDED = ("query", "candidate", "answer", "label", "utility", "query_task", "candidate_task", "candidate_id", "set")
"""Columns of the pairs that training and its evaluation read."""


@dataclass
class ScriptArguments:
    """What `recross train-reranker` takes beside the arguments of the training."""

    pairs: str = field(metadata={"help": "pairs.parquet of `recross mine`, or the folder with it."})
    model_name_or_path: str = field(
        default="FacebookAI/roberta-base", metadata={"help": "An encoder, or a cross-encoder with one label."}
    )
    loss: str = field(
        default="binary",
        metadata={
            "help": "Loss of the training; the paper's is binary.",
            "choices": list(LOSSES),
            "aliases": ["--objective"],
        },
    )
    dev_tasks: list[str] | None = field(default=None, metadata={"help": "Query tasks to hold out."})
    num_dev_tasks: int = field(default=4, metadata={"help": "Or how many, drawn at random; 0 trains on all."})
    freeze_embeddings: bool = field(
        default=False, metadata={"help": "Keep the pretrained word embeddings as they are."}
    )
    add_to_pipeline: str | None = field(default=None, metadata={"help": "A pipeline folder to put the reranker into."})
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Say what it will take, time, memory and disk, from a few steps, and stop; nothing is written."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def main(argv: Sequence[str]) -> None:
    """Trains a reranker as the command line says, or says what it will take."""
    parser = CommandParser(
        "train-reranker",
        (ScriptArguments, RerankerTrainingArguments),
        about=ABOUT,
        groups=GROUPS,
        defaults={"report_to": "none"},
    )
    script, args = parser.parse(argv)
    read = {"the model": script.model_name_or_path, "the pipeline": script.add_to_pipeline}
    check_apart(args.output_dir, read)
    path = Path(script.pairs)
    path = path / "pairs.parquet" if path.is_dir() else path
    if not path.is_file():
        parser.error(f"Expected pairs.parquet of `recross mine` as --pairs, found none at {path}")
    check_apart_from_files(args.output_dir, [path])
    if not script.overwrite:
        check_not_of_others(args.output_dir, None)
    set_seed(args.seed)
    pairs = read_parquet(path)
    if missing := [name for name in NEEDED if name not in pairs.column_names]:
        parser.error(f"Expected pairs.parquet of `recross mine` as --pairs, found {path} without {', '.join(missing)}")
    train, dev = pairs, None
    if script.dev_tasks or script.num_dev_tasks:
        number = None if script.dev_tasks else script.num_dev_tasks
        train, dev = split_by_task(pairs, dev_tasks=script.dev_tasks, num_dev_tasks=number, seed=args.seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        script.model_name_or_path, num_labels=1, dtype="float32"
    )
    if script.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    make_trainer = partial(
        RerankerTrainer,
        model,
        eval_dataset=dev,
        processing_class=AutoTokenizer.from_pretrained(script.model_name_or_path),
        loss=LOSSES[script.loss],
    )
    if script.dry_run:
        _tell_plan(make_trainer, train, dev, args)
        return
    if script.overwrite:
        make_way(args.output_dir)
    trainer = make_trainer(args, train_dataset=train)
    use_bars(trainer, shows_logs=not is_quiet())
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    metrics: dict[str, Any] | None = trainer.evaluate(metric_key_prefix="dev") if dev is not None else None
    if trainer.is_world_process_zero():
        if metrics is not None and dev is not None:
            metrics = {name.removeprefix("dev_"): value for name, value in metrics.items()}
            metrics["dev_tasks"] = sorted(set(dev["query_task"][:]))
            write_json(Path(args.output_dir) / "dev_metrics.json", metrics)
            show(f"\n{format_reranker_metrics(metrics)}")
        if script.add_to_pipeline:
            save_reranker(script.add_to_pipeline, trainer.reranker())
        print(f"\nWritten to {args.output_dir}/" + f" and {script.add_to_pipeline}/" * bool(script.add_to_pipeline))
    if args.push_to_hub:
        trainer.push_to_hub()
    end_process_group()


def _tell_plan(
    make_trainer: Callable[..., RerankerTrainer], train: Dataset, dev: Dataset | None, args: RerankerTrainingArguments
) -> None:
    sample = None
    if dev is not None:  # two whole query sets, as they are evaluated
        some = set(dev.unique("set")[:2])
        sample = dev.select([row for row, number in enumerate(dev["set"][:]) if number in some])
    plan = plan_training(
        lambda pairs, args: make_trainer(args, train_dataset=pairs),
        train,
        args,
        eval_sample=sample,
        num_eval_examples=len(dev or []),
    )
    if process_state().is_main_process:
        show(str(plan))
    end_process_group()
