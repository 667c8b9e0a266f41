"""Train a reranker on mined pairs, and put it into a pipeline.

    accelerate launch examples/train_reranker.py --pairs supervision/pairs.parquet --output_dir reranker \
        --model_name_or_path FacebookAI/roberta-base --num_dev_tasks 4

    accelerate launch examples/train_reranker.py --pairs supervision/pairs.parquet --output_dir reranker \
        --loss pairwise --group_by_query --add_to_pipeline bart0-pipeline

The dev split holds out whole tasks. Few query sets are soon learned by heart: to keep the checkpoint that does best on held-out
tasks, add --eval_strategy steps --eval_steps 50 --save_strategy steps --save_steps 50 --load_best_model_at_end
--metric_for_best_model eval_auc. What is printed and written to dev_metrics.json: how well the reranker tells what helps
there, beside the dense retriever's own order and chance. Every argument of `TrainingArguments` works.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from transformers import AutoModelForSequenceClassification, AutoTokenizer, HfArgumentParser, set_seed

from recross_hf import RerankerTrainer, RerankerTrainingArguments, split_by_task
from recross_hf.core.distributed import end_process_group, process_state
from recross_hf.core.files import read_parquet, write_json
from recross_hf.core.output_folders import check_apart, check_apart_from_files, check_not_of_others
from recross_hf.pipeline.saving import save_reranker
from recross_hf.planning.training import plan_training
from recross_hf.reranking.evaluation import format_reranker_metrics
from recross_hf.reranking.losses import binary, pairwise, regression

LOSSES = {"binary": binary, "regression": regression, "pairwise": pairwise}


@dataclass
class ScriptArguments:
    pairs: str = field(metadata={"help": "pairs.parquet of mine_supervision.py."})
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


def main(argv: list[str] | None = None) -> None:
    parser = HfArgumentParser((ScriptArguments, RerankerTrainingArguments))
    parser.set_defaults(report_to="none")
    script, args = parser.parse_args_into_dataclasses(argv)
    read = {"the model": script.model_name_or_path, "the pipeline": script.add_to_pipeline}
    check_apart(args.output_dir, read)
    check_apart_from_files(args.output_dir, [script.pairs])
    check_not_of_others(args.output_dir, None)
    set_seed(args.seed)
    pairs = read_parquet(script.pairs)
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
        process_state().print(plan)
        end_process_group()
        return
    trainer = make_trainer(args, train_dataset=train)
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    trainer.save_model()
    metrics = trainer.evaluate(metric_key_prefix="dev") if dev is not None else None
    if trainer.is_world_process_zero():
        if metrics is not None:
            metrics = {name.removeprefix("dev_"): value for name, value in metrics.items()}
            metrics["dev_tasks"] = sorted(set(dev["query_task"][:]))
            write_json(Path(args.output_dir) / "dev_metrics.json", metrics)
            print(f"\n{format_reranker_metrics(metrics)}")
        if script.add_to_pipeline:
            save_reranker(script.add_to_pipeline, trainer.reranker())
        print(f"\nWritten to {args.output_dir}/" + f" and {script.add_to_pipeline}/" * bool(script.add_to_pipeline))
    if args.push_to_hub:
        trainer.push_to_hub()
    end_process_group()


if __name__ == "__main__":
    main()
