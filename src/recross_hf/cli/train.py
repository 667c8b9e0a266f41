"""Train an upstream model: one text-to-text model on a mixture of many tasks.

From a pretrained sequence-to-sequence model, as the paper does (BART-large on 36 tasks), or a decoder-only one; on eight
GPUs:

    accelerate launch --config_file examples/recipes/accelerate/ddp.yaml examples/train_upstream.py \
        --config examples/recipes/bart0.yaml --train_files 'upstream/*/train.parquet' --eval_files 'upstream/*/dev.parquet'

From a pretrained encoder, where the machine is small:

    accelerate launch examples/train_upstream.py --config examples/recipes/minilm.yaml --train_files 'upstream/*/train.parquet'

A recipe is a YAML file with the arguments of this script; what the command line says comes before it. Every argument of
`Seq2SeqTrainingArguments` works; `--resume_from_checkpoint true` continues a killed run from its last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

import numpy as np
from accelerate import PartialState
from datasets import concatenate_datasets
from transformers import AutoTokenizer, HfArgumentParser, set_seed

from recross_hf import (
    ExampleTrainer,
    ExampleTrainingArguments,
    examples_by_task,
    load_examples,
    load_model,
    warm_start_seq2seq,
)
from recross_hf.core.distributed import end_process_group
from recross_hf.core.files import write_json
from recross_hf.core.output_folders import check_apart, check_apart_from_files, check_not_of_others
from recross_hf.core.recipes import named_values, recipe_arguments
from recross_hf.data.files import files_of
from recross_hf.data.schema import EXAMPLE_FEATURES
from recross_hf.models.warm_start import freeze
from recross_hf.planning.plan import warn_where_disk_is_short
from recross_hf.planning.training import checkpoint_bytes, plan_training
from recross_hf.training.checkpoints import checkpoint_to_resume
from recross_hf.training.results import format_task_results, task_results

COPIED_TEXTS = 512
# What says how a model is grown.
OF_GROWTH = ("encoder_layers", "decoder_layers", "copying_start")


@dataclass
class UpstreamArguments:
    train_files: list[str] = field(metadata={"help": "Upstream examples: files, folders or patterns."})
    config: str | None = field(default=None, metadata={"help": "A recipe: a YAML file with arguments of this script."})
    eval_files: list[str] | None = field(
        default=None, metadata={"help": "Held-out examples of the upstream tasks; each task is evaluated on its own."}
    )
    max_eval_examples_per_task: int | None = field(
        default=None, metadata={"help": "Evaluate on so many examples of a task, always the same ones."}
    )
    columns: list[str] = field(
        default_factory=list, metadata={"help": "Column mapping, e.g. --columns references=outputs id=example_id"}
    )
    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A sequence-to-sequence or decoder-only model to start from."}
    )
    encoder_name_or_path: str | None = field(
        default=None, metadata={"help": "Or a BERT-like encoder to grow one from."}
    )
    encoder_layers: int | None = field(default=None, metadata={"help": "How many of its layers the encoder keeps."})
    decoder_layers: int = field(default=2, metadata={"help": "How many of its layers the decoder keeps."})
    freeze_embeddings: bool = field(default=False, metadata={"help": "Keep the pretrained embeddings as they are."})
    freeze_encoder_layers: int = field(
        default=0, metadata={"help": "Keep this many of the encoder's first layers as they are, too."}
    )
    truncation_side: Literal["left", "right"] | None = field(
        default=None,
        metadata={
            "help": "Where inputs that are too long are cut: left keeps their end, where a question and its options often stand. "
            "It is saved with the tokenizer, which cuts there ever after; its own by default."
        },
    )
    copying_start: bool = field(
        default=True,
        metadata={
            "help": "Let the cross-attention of a grown model start so that it copies words of the input; false: at random."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Say what it will take, time, memory and disk, from a few steps, and stop; nothing is written."
        },
    )


def parse(command_line: list[str]) -> tuple[UpstreamArguments, ExampleTrainingArguments, dict[str, str]]:
    """The arguments of a command line, and of the recipe that it names; and where the columns are."""
    parser = HfArgumentParser((UpstreamArguments, ExampleTrainingArguments), allow_abbrev=False)
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config")
    recipe = before.parse_known_args(command_line)[0].config
    if recipe is not None:
        known = {argument.name for kind in parser.dataclass_types for argument in fields(kind) if argument.init}
        known -= {"config"}
        command_line = [*recipe_arguments(recipe, known), *command_line]
    upstream, args = parser.parse_args_into_dataclasses(command_line)
    if (upstream.model_name_or_path is None) == (upstream.encoder_name_or_path is None):
        parser.error("give --model_name_or_path or --encoder_name_or_path, one of them")
    if upstream.encoder_name_or_path is None:
        # What is set beforehand gets no default: it stays None unless the command line says it.
        unset = argparse.Namespace(**dict.fromkeys(OF_GROWTH))
        said = parser.parse_known_args(command_line, namespace=unset)[0]
        if given := [f"--{name}" for name in OF_GROWTH if getattr(said, name) is not None]:
            parser.error(
                f"{', '.join(given)}: for a model that is grown from --encoder_name_or_path, found with --model_name_or_path, "
                "which is taken as it is; leave out the one or the other"
            )
    if upstream.eval_files is None and (args.eval_strategy != "no" or args.load_best_model_at_end):
        parser.error("give --eval_files, or --eval_strategy no --load_best_model_at_end false")
    columns = named_values("--columns", upstream.columns, parser.error, known=list(EXAMPLE_FEATURES))
    return upstream, args, columns


def main(argv: list[str] | None = None) -> None:
    upstream, args, columns = parse(sys.argv[1:] if argv is None else argv)
    checkpoint = checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir)  # it fails at once
    models = {"the model": upstream.model_name_or_path, "the encoder": upstream.encoder_name_or_path}
    check_apart(args.output_dir, models)
    patterns = [*upstream.train_files, *(upstream.eval_files or [])]
    check_apart_from_files(args.output_dir, [path for pattern in patterns for path in files_of(pattern)])
    check_not_of_others(args.output_dir, None)
    set_seed(args.seed)
    evaluation = None
    with PartialState().main_process_first():
        train = load_examples(upstream.train_files, columns=columns)
        if upstream.eval_files:
            evaluation = examples_by_task(
                load_examples(upstream.eval_files, columns=columns),
                max_examples_per_task=upstream.max_eval_examples_per_task,
            )

    if upstream.model_name_or_path is not None:
        model = load_model(upstream.model_name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(upstream.model_name_or_path)
        freeze(model, embeddings=upstream.freeze_embeddings, encoder_layers=upstream.freeze_encoder_layers)
    else:
        read = None
        if upstream.copying_start:
            rows = np.random.default_rng(args.seed).choice(len(train), min(len(train), COPIED_TEXTS), replace=False)
            read = train.select(rows)["input"][:]
        model, tokenizer = warm_start_seq2seq(
            upstream.encoder_name_or_path,
            encoder_layers=upstream.encoder_layers,
            decoder_layers=upstream.decoder_layers,
            max_new_tokens=args.max_target_length,
            freeze_embeddings=upstream.freeze_embeddings,
            freeze_encoder_layers=upstream.freeze_encoder_layers,
            copied_texts=read,
        )
    if upstream.truncation_side is not None:
        tokenizer.truncation_side = upstream.truncation_side
        tokenizer.init_kwargs["truncation_side"] = upstream.truncation_side  # what is saved

    if upstream.dry_run:
        held_out = concatenate_datasets(list(evaluation.values())).shuffle(seed=0) if evaluation else None
        plan = plan_training(
            lambda examples, args: ExampleTrainer(model, args, train_dataset=examples, processing_class=tokenizer),
            train,
            args,
            eval_sample=held_out.select(range(min(len(held_out), 64))) if held_out else None,
            num_eval_examples=len(held_out or []),
        )
        PartialState().print(plan)
        end_process_group()
        return
    trainer = ExampleTrainer(model, args, train_dataset=train, eval_dataset=evaluation, processing_class=tokenizer)
    if trainer.is_world_process_zero():
        least, _ = checkpoint_bytes(model, args, args.max_steps if args.max_steps > 0 else 1)
        warn_where_disk_is_short(
            args.output_dir, least, "Keep fewer checkpoints (--save_total_limit) or --save_only_model."
        )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    if evaluation is not None:
        metrics = trainer.evaluate()
        if trainer.is_world_process_zero():
            counts = {task: len(examples) for task, examples in evaluation.items()}
            results = task_results(metrics, counts, decoding=trainer.decoding)
            write_json(Path(args.output_dir) / "eval_results.json", results)
            print(f"\n{format_task_results(results)}")
    if args.push_to_hub:
        trainer.push_to_hub()
    end_process_group()


if __name__ == "__main__":
    main()
