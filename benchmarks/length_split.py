"""A training step in parts of like length, beside the same step as one padded batch, and beside parts without any padding.

    python benchmarks/length_split.py
    python benchmarks/length_split.py --model_name_or_path gemma --files upstream.parquet --columns id=example_id references=outputs \
        --use_peft --batch_size 8 --bf16

By default the starter's upstream model is trained, all weights of it, on batches of its upstream examples drawn at random. All ways take turns on the same
batches and compute the same gradient. What another part costs in tokens is fitted to their times (`PART_COST` of `training/length_split.py`).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import datasets
import numpy as np
import torch
import transformers
from figures import Figure, report
from peft import LoraConfig

from recross_hf import ExampleTrainer, ExampleTrainingArguments, ReCrossPipeline, load_examples
from recross_hf.models.adapters import load_upstream_model, load_upstream_tokenizer, with_new_adapter
from recross_hf.models.architectures import SEQUENCE_TO_SEQUENCE, architecture_of
from recross_hf.models.collators import Batch
from recross_hf.training import token_weights
from recross_hf.training.length_split import PART_COST, split_by_length

WHOLE, OURS, NONE = "one batch", "parts of like length", "no padding"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", help="any text-to-text model; the starter's upstream one by default")
    parser.add_argument("--files", nargs="+", help="examples; the starter's upstream ones by default")
    parser.add_argument("--columns", nargs="*", default=[], help="their columns")
    parser.add_argument("--use_peft", action="store_true", help="train LoRA of rank 16 on all linear layers")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--max_input_length", type=int, default=320)
    parser.add_argument("--num_steps", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/length_split.json"))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        trainer, batches = prepared(args, folder)
        apart = architecture_of(trainer.model) is SEQUENCE_TO_SEQUENCE
        ways: dict[str, Callable[[Batch], list[Batch]]] = {
            WHOLE: lambda batch: [batch],
            OURS: lambda batch: split_by_length(batch, has_targets_apart=apart),
            NONE: lambda batch: split_by_length(batch, has_targets_apart=apart, part_cost=0),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        tokens: dict[str, list[int]] = {name: [] for name in ways}
        parts: dict[str, list[int]] = {name: [] for name in ways}
        for number, batch in enumerate(batches):
            for name in [*ways] if number % 2 == 0 else [*ways][::-1]:
                found = ways[name](batch)
                tokens[name].append(sum(part["input_ids"].numel() + apart * part["labels"].numel() for part in found))
                parts[name].append(len(found))
                token_weights.split_by_length = lambda batch, found=found, **settings: found
                start = time.perf_counter()
                trainer.training_step(trainer.model, dict(batch))
                seconds[name].append(time.perf_counter() - start)
    filled = [int(batch["attention_mask"].sum() + apart * (batch["labels"] != -100).sum()) for batch in batches]
    figure = Figure(
        what=f"a step of {args.batch_size}" + (", bfloat16" if args.bf16 else ""),
        unit="s",
        ours=mean(seconds[OURS]),
        peer=mean(seconds[WHOLE]),
        peer_name=WHOLE,
        ratio=sum(seconds[WHOLE]) / sum(seconds[OURS]),
    )
    cost = part_cost([seconds, tokens, parts])
    raw = {
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "tokens": tokens,
        "parts": parts,
        "filled": filled,
        "cost_of_a_part_in_tokens": cost,
    }
    report([figure], raw, args.output)
    for name in ways:
        padding = 100 * (1 - sum(filled) / sum(tokens[name]))
        print(
            f"{name}: {mean(seconds[name]):.3f} s, median {median(seconds[name]):.3f}, {padding:.0f} % padding, {mean(parts[name]):.1f} parts"
        )
    print(f"another part costs as much as {cost:.0f} tokens; {PART_COST} are assumed")


def prepared(args: argparse.Namespace, folder: str) -> tuple[ExampleTrainer, list[Batch]]:
    """A trainer that has made a step, and batches drawn at random."""
    columns = dict(pair.split("=", 1) for pair in args.columns)
    if args.model_name_or_path is None:
        pipeline = ReCrossPipeline.from_pretrained()
        model, tokenizer, examples = pipeline.upstream_model, pipeline.processing_class, pipeline.index.dataset
    else:
        model = load_upstream_model(args.model_name_or_path)
        tokenizer = load_upstream_tokenizer(args.model_name_or_path)
    if args.files is not None:
        examples = load_examples(args.files, columns=columns)
    if args.use_peft:
        task_type = architecture_of(model).peft_task_type
        lora = LoraConfig(task_type=task_type, r=16, lora_alpha=32, target_modules="all-linear")
        model = with_new_adapter(model, lora, seed=0)
    settings = ExampleTrainingArguments(
        output_dir=folder,
        max_steps=1,
        per_device_train_batch_size=args.batch_size,
        learning_rate=0.0,
        bf16=args.bf16,
        max_input_length=args.max_input_length,
        max_target_length=24,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    number = args.num_steps * args.batch_size
    examples = examples.select(np.random.default_rng(0).choice(len(examples), number, replace=False))
    trainer = ExampleTrainer(model, settings, processing_class=tokenizer, train_dataset=examples)
    trainer.train()
    rows = [trainer.train_dataset[row] for row in range(number)]
    first = range(0, number, args.batch_size)
    return trainer, [trainer.data_collator(rows[row : row + args.batch_size]) for row in first]


def part_cost(measured: list[dict[str, list[float]]]) -> float:
    """What a part costs in tokens, of a least-squares fit of `seconds = a * tokens + b * parts`."""
    seconds, tokens, parts = (np.concatenate([*of_ways.values()]) for of_ways in measured)
    (per_token, per_part), *_ = np.linalg.lstsq(np.stack([tokens, parts], axis=1), seconds, rcond=None)
    return float(per_part / per_token)


if __name__ == "__main__":
    main()
