"""Adapt an upstream model to an unseen task from a few unlabelled inputs.

The starter, a small model that comes with the package, on a task it never saw:

    accelerate launch examples/adapt.py

Your own pipeline and inputs (one a line, or parquet, jsonl, csv), here with LoRA:

    accelerate launch examples/adapt.py --pipeline bart0-pipeline --query_file tickets.txt --eval_file labelled.jsonl \
        --use_peft --learning_rate 1e-4 --output_dir ticket-triage

From a pipeline on the Hub, and the adapted one to the Hub; what it was made of is named there, and not uploaded again:

    accelerate launch examples/adapt.py --pipeline org/bart0-pipeline --query_file tickets.txt --use_peft \
        --push_to_hub --hub_model_id me/ticket-triage

Every argument of `Seq2SeqTrainingArguments` works. Settings come from the command line, else from `--preset`, else from the
pipeline, else from the paper.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from transformers import HfArgumentParser

from recross_hf import (
    AdaptationArguments,
    DenseRetriever,
    RandomRetriever,
    ReCrossPipeline,
    load_examples,
    load_queries,
    load_starter_task,
    starter_tasks,
)
from recross_hf.adaptation.arguments import AUTHORS_CODE
from recross_hf.adaptation.results import adaptation_results, format_results, plot_task_shares
from recross_hf.core.distributed import agreed, end_process_group
from recross_hf.core.files import write_json
from recross_hf.core.recipes import named_values
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.hub.publishing import check_may_publish
from recross_hf.models.architectures import architecture_of


@dataclass
class ScriptArguments:
    pipeline: str | None = field(
        default=None, metadata={"help": "A pipeline folder, or a name on the Hub; the starter by default."}
    )
    revision: str | None = field(
        default=None, metadata={"help": "Of a pipeline on the Hub: a branch, a tag or a commit."}
    )
    query_file: str | None = field(default=None, metadata={"help": "The unlabelled inputs of your task."})
    eval_file: str | None = field(
        default=None, metadata={"help": "Labelled examples to evaluate on, if there are any."}
    )
    task: str | None = field(
        default=None, metadata={"help": "Name of the task; without query_file, one of the starter's."}
    )
    query_set: int = field(default=0, metadata={"help": "Which of the starter's five query sets."})
    num_queries: int | None = field(default=None, metadata={"help": "Use the first so many inputs of the query file."})
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    retriever: str = field(default="dense", metadata={"help": "What to learn from.", "choices": ["dense", "random"]})
    exclude_tasks: list[str] = field(default_factory=list, metadata={"help": "Upstream tasks not to retrieve from."})
    preset: str | None = field(
        default=None,
        metadata={
            "help": "The paper's settings, or those that the authors' code ran with ('as_run' is the same).",
            "choices": ["paper", "authors_code", "as_run"],
        },
    )
    use_peft: bool = field(default=False, metadata={"help": "Train a LoRA adapter in place of all weights."})
    lora_r: int = field(default=16, metadata={"help": "LoRA rank."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA alpha."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA dropout."})
    lora_target_modules: list[str] | None = field(
        default=None, metadata={"help": "Modules that LoRA adapts, e.g. query value; PEFT's choice by default."}
    )


def main(argv: list[str] | None = None) -> None:
    parser = HfArgumentParser((ScriptArguments, AdaptationArguments))
    script, _ = parser.parse_args_into_dataclasses(argv)
    columns = named_values("--columns", script.columns, parser.error, known=list(EXAMPLE_FEATURES))
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal start
        seconds[stage] = time.perf_counter() - start
        start = time.perf_counter()

    pipeline = ReCrossPipeline.from_pretrained(script.pipeline, revision=script.revision)
    presets = {None: pipeline.adaptation, "paper": {}, "authors_code": AUTHORS_CODE, "as_run": AUTHORS_CODE}
    settings = presets[script.preset]
    parser.set_defaults(output_dir="adapted", report_to="none", **settings)
    script, args = parser.parse_args_into_dataclasses(argv)
    pipeline.check_output_dir(args.output_dir)
    # The pipeline is pushed when it is whole, and not the model while it trains.
    push_to_hub, args.push_to_hub = args.push_to_hub, False
    if push_to_hub:
        check = partial(check_may_publish, token=args.hub_token, private=args.hub_private_repo)
        repo_id = agreed(partial(check, args.hub_model_id or Path(args.output_dir).resolve().name))
    if script.query_file is None:
        if script.pipeline is not None:
            parser.error("--pipeline needs --query_file, the unlabelled inputs of your task")
        task = script.task or starter_tasks()[0]
        queries, evaluation = load_starter_task(task, script.query_set)
    else:
        task = script.task or Path(script.query_file).stem
        has_columns = not script.query_file.endswith(".txt")
        unlabelled = {name: column for name, column in columns.items() if name != "references" and has_columns}
        queries = load_queries(script.query_file, columns=unlabelled, task=task)
        evaluation = load_examples(script.eval_file, columns=columns, task=task) if script.eval_file else None
    if script.num_queries is not None:
        queries = queries.select(range(min(script.num_queries, len(queries))))
    if script.retriever == "dense":
        retriever = DenseRetriever(pipeline.index, exclude_tasks=script.exclude_tasks)
    else:
        retriever = RandomRetriever(pipeline.index.dataset, seed=args.seed, exclude_tasks=script.exclude_tasks)
    peft_config = None
    if script.use_peft:
        from peft import LoraConfig

        peft_config = LoraConfig(
            task_type=architecture_of(pipeline.upstream_model).peft_task_type,
            r=script.lora_r,
            lora_alpha=script.lora_alpha,
            lora_dropout=script.lora_dropout,
            target_modules=script.lora_target_modules,
        )
    adapter = pipeline.adapter(
        queries,
        args,
        retriever=retriever,
        peft_config=peft_config,
        eval_dataset=evaluation,
    )
    lap("load")

    if evaluation is not None:
        adapter.evaluate(metric_key_prefix="base")
        lap("evaluate base")
    if args.resume_from_checkpoint is None:
        adapter.retrieve()
        seconds.update(adapter.seconds)
        start = time.perf_counter()
    adapter.train(resume_from_checkpoint=args.resume_from_checkpoint)
    lap("train")
    if adapter.gate is not None:
        seconds["gate"] = adapter.seconds["gate"]
        seconds["train"] -= seconds["gate"]
    if evaluation is not None:
        adapter.evaluate(metric_key_prefix="adapted")
        lap("evaluate adapted")
    adapter.save_model()
    lap("save")

    if adapter.is_world_process_zero():
        output_dir = Path(args.output_dir)
        results = adaptation_results(adapter.adaptation, adapter.retrieved, task=task, seconds=seconds)
        adapter.create_model_card()
        plot_task_shares(adapter.retrieved, output_dir / "retrieved_tasks.png", title=f"What {task} was learned from")
        write_json(output_dir / "results.json", results)
        print(
            f"\n{format_results(results)}\n\nWritten to {output_dir}/: the model, README.md, results.json, "
            "retrieved.parquet, retrieved_tasks.png"
        )
    # The others are done: none of them waits while the main process uploads.
    end_process_group()
    if push_to_hub and adapter.is_world_process_zero():
        commit = pipeline.adapted(adapter).push_to_hub(
            repo_id,
            token=args.hub_token,
            private=args.hub_private_repo,
            revision=args.hub_revision,
        )
        print(f"Published: {commit.commit_url}")


if __name__ == "__main__":
    main()
