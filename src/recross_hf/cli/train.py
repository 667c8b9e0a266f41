"""`recross train`: train an upstream model, one text-to-text model, on a mixture of many tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from .. import (
    ExampleTrainer,
    ExampleTrainingArguments,
    examples_by_task,
    load_examples,
    warm_start_seq2seq,
)
from ..core.distributed import end_process_group
from ..core.files import write_json
from ..core.output_folders import check_apart, check_apart_from_files, check_not_of_others
from ..core.recipes import named_values
from ..data.files import files_of
from ..data.schema import COLUMNS
from ..models.adapters import check_peft_config, load_upstream_model, load_upstream_tokenizer, with_new_adapter
from ..models.warm_start import freeze
from ..planning.plan import warn_where_disk_is_short
from ..planning.training import checkpoint_bytes, plan_training, tokenizer_bytes
from ..training.checkpoints import checkpoint_to_resume
from ..training.results import format_task_results, logged_metrics, task_results
from .bars import use_bars
from .chat_format import ChatArguments
from .console import is_quiet, show
from .lora import LoraArguments, four_bit
from .model_loading import ModelLoading
from .outputs import OVERWRITE, make_way
from .parser import CommandParser
from .upstream_trainer import UpstreamTrainer

COPIED_TEXTS = 512
# What says how a model is grown.
OF_GROWTH = ("encoder_layers", "decoder_layers", "copying_start")
# What has no sense where the weights stay as they are.
NOT_WITH_LORA = ("encoder_name_or_path", "freeze_embeddings", "freeze_encoder_layers")

ABOUT = (
    "Train an upstream model: one text-to-text model on a mixture of many tasks, from a pretrained model or grown from an encoder. "
    "`--config examples/recipes/bart0.yaml` has the paper's settings; `--resume_from_checkpoint true` continues a killed run."
)
GROUPS = {
    "What to train on, and where it goes": ["train_files", "eval_files", "columns", "output_dir", "overwrite"],
    "What to start from": ["model_name_or_path", "encoder_name_or_path"],
    "How": [
        "use_peft",
        "learning_rate",
        "max_steps",
        "per_device_train_batch_size",
        "token_budget",
        "dry_run",
    ],
}


@dataclass
class UpstreamArguments(ModelLoading):
    """What `recross train` takes beside the arguments of the training."""

    train_files: list[str] = field(metadata={"help": "Upstream examples: files, folders or patterns."})
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
    load_in_4bit: bool = field(
        default=False,
        metadata={
            "help": "Load the base in 4 bits and train the adapter on it (QLoRA); it needs a GPU and --use_peft."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={
            "help": "Say what it will take, time, memory and disk, from a few steps, and stop; nothing is written."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": OVERWRITE})


def parse(
    argv: Sequence[str],
) -> tuple[UpstreamArguments, LoraArguments, ChatArguments, ExampleTrainingArguments, dict[str, str]]:
    """The arguments of a command line, and of the recipe that it names; and where the columns are."""
    kinds = (UpstreamArguments, LoraArguments, ChatArguments, ExampleTrainingArguments)
    parser = CommandParser("train", kinds, about=ABOUT, groups=GROUPS)
    said = parser.said(argv)
    upstream, lora = parser.made(UpstreamArguments, said), parser.made(LoraArguments, said)
    chat, args = parser.made(ChatArguments, said), parser.made(ExampleTrainingArguments, said)
    if (upstream.model_name_or_path is None) == (upstream.encoder_name_or_path is None):
        found = "neither" if upstream.model_name_or_path is None else "both"
        parser.error(f"Expected --model_name_or_path or --encoder_name_or_path, one of them, found {found}")
    if upstream.encoder_name_or_path is None and (given := [f"--{name}" for name in OF_GROWTH if name in said]):
        parser.error(
            f"{', '.join(given)}: for a model that is grown from --encoder_name_or_path, found with --model_name_or_path, "
            "which is taken as it is; leave out the one or the other"
        )
    if upstream.gguf_file is not None and (upstream.encoder_name_or_path is not None or upstream.load_in_4bit):
        parser.error(
            "--gguf_file: for --model_name_or_path, whose weights it holds unpacked; leave out the encoder, or --load_in_4bit"
        )
    if lora.use_peft and (wrong := [f"--{name}" for name in NOT_WITH_LORA if name in said]):
        parser.error(
            f"{', '.join(wrong)}: for a model all of whose weights are trained, found with --use_peft, whose base stays as it is and is "
            "named by its adapter; leave out the one or the other"
        )
    if upstream.load_in_4bit and not lora.use_peft:
        parser.error("--load_in_4bit needs --use_peft: weights of 4 bits cannot be trained themselves")
    if upstream.dtype != "float32" and (upstream.load_in_4bit or not lora.use_peft):
        held = f"--dtype {upstream.dtype}: for the base below an adapter (--use_peft, also of one that is trained further)"
        parser.error(
            f"{held}, found --load_in_4bit, which packs the base and holds the rest in float32; leave out the one or the other"
            if upstream.load_in_4bit
            else f"{held}, found none: weights that are trained are held in float32; --bf16 computes in half precision"
        )
    if upstream.eval_files is None and (args.eval_strategy != "no" or args.load_best_model_at_end):
        parser.error("give --eval_files, or --eval_strategy no --load_best_model_at_end false")
    columns = named_values("--columns", upstream.columns, parser.error, known=list(COLUMNS))
    return upstream, lora, chat, args, columns


def main(argv: Sequence[str]) -> None:
    """Trains an upstream model as the command line says, or says what it will take."""
    upstream, lora, chat, args, columns = parse(argv)
    assert args.output_dir is not None  # the trainer has a default
    checkpoint = checkpoint_to_resume(args.resume_from_checkpoint, args.output_dir)  # it fails at once
    check_output(upstream, args.output_dir)
    set_seed(args.seed)
    evaluation = None
    with PartialState().main_process_first():
        train = load_examples(upstream.train_files, columns=columns)
        if upstream.eval_files:
            evaluation = examples_by_task(
                load_examples(upstream.eval_files, columns=columns),
                max_examples_per_task=upstream.max_eval_examples_per_task,
            )
    model, tokenizer = start_of(upstream, lora, args, train)
    chat.apply_to(tokenizer, model)
    if upstream.dry_run:
        tell_plan(model, tokenizer, args, train, evaluation)
        return
    if upstream.overwrite:  # what was there goes once nothing is left that could be wrong
        make_way(args.output_dir)
    trainer = UpstreamTrainer(model, args, train_dataset=train, eval_dataset=evaluation, processing_class=tokenizer)
    trainer.upstream_dataset = train
    if trainer.is_world_process_zero():
        num_steps, of_tokenizer = max(args.max_steps, 1), tokenizer_bytes(tokenizer)
        least, _ = checkpoint_bytes(model, args, num_steps, of_tokenizer=of_tokenizer)
        warn_where_disk_is_short(
            args.output_dir, least, "Keep fewer checkpoints (--save_total_limit) or --save_only_model."
        )
    use_bars(trainer, shows_logs=not is_quiet())
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    if hasattr(model, "peft_config"):
        trainer.create_model_card()
    if evaluation is not None:
        # What an earlier process logged may be of other evaluation examples.
        logged = logged_metrics(trainer.state, args, evaluation) if checkpoint is None else None
        metrics = logged or trainer.evaluate()
        if trainer.is_world_process_zero():
            counts = {task: len(examples) for task, examples in evaluation.items()}
            results = task_results(metrics, counts, decoding=trainer.decoding)
            write_json(Path(args.output_dir) / "eval_results.json", results)
            show(f"\n{format_task_results(results)}")
    if args.push_to_hub:
        trainer.push_to_hub()
    end_process_group()


def check_output(upstream: UpstreamArguments, output_dir: str) -> None:
    """Refuses to write into what is read, or into a folder that holds something else."""
    models = {"the model": upstream.model_name_or_path, "the encoder": upstream.encoder_name_or_path}
    check_apart(output_dir, models)
    patterns = [*upstream.train_files, *(upstream.eval_files or [])]
    check_apart_from_files(output_dir, [path for pattern in patterns for path in files_of(pattern)])
    if not upstream.overwrite:
        check_not_of_others(output_dir, None)


def start_of(
    upstream: UpstreamArguments, lora: LoraArguments, args: ExampleTrainingArguments, train: Dataset
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model that the training starts from, as it is, with a new adapter or grown from an encoder, and its tokenizer."""
    if upstream.model_name_or_path is not None:
        quantized = {"quantization_config": four_bit()} if upstream.load_in_4bit else {}
        model = load_upstream_model(upstream.model_name_or_path, is_trainable=True, **upstream.of_model, **quantized)
        tokenizer = load_upstream_tokenizer(upstream.model_name_or_path, **upstream.packed)
        freeze(model, embeddings=upstream.freeze_embeddings, encoder_layers=upstream.freeze_encoder_layers)
        if lora.use_peft and not hasattr(model, "peft_config"):
            model = adapted_base(model, lora, args, is_quantized=upstream.load_in_4bit)
    else:
        assert upstream.encoder_name_or_path is not None
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
    return model, tokenizer


def adapted_base(
    model: PreTrainedModel, lora: LoraArguments, args: ExampleTrainingArguments, *, is_quantized: bool
) -> PreTrainedModel:
    """A base with the new LoRA adapter that is asked for."""
    if is_quantized:
        from peft import prepare_model_for_kbit_training

        prepare: Any = prepare_model_for_kbit_training  # PEFT leaves it without annotations
        model = prepare(model, use_gradient_checkpointing=args.gradient_checkpointing)
    peft_config = lora.config_for(model)
    check_peft_config(model, peft_config)
    return with_new_adapter(model, peft_config, args.seed)


def tell_plan(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    args: ExampleTrainingArguments,
    train: Dataset,
    evaluation: dict[str, Dataset] | None,
) -> None:
    """Says what a training will take."""
    held_out = concatenate_datasets(list(evaluation.values())).shuffle(seed=0) if evaluation else None
    plan = plan_training(
        # The arguments are a copy of those that are given.
        lambda examples, args: ExampleTrainer(
            model,
            args,  # type: ignore[arg-type]
            train_dataset=examples,
            processing_class=tokenizer,
        ),
        train,
        args,
        eval_sample=held_out.select(range(min(len(held_out), 64))) if held_out else None,
        num_eval_examples=len(held_out or []),
    )
    if PartialState().is_main_process:
        show(str(plan))
    end_process_group()
