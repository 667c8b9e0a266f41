"""Examples a second of upstream training: `ExampleTrainer` with a token budget against a plain `Seq2SeqTrainer`.

    python benchmarks/upstream_training.py
    python benchmarks/upstream_training.py --train_files 'upstream/*/train.parquet' --columns references=outputs id=example_id \
        --model_name_or_path bart-small --max_input_length 256 --output benchmarks/results/upstream_training_real.json

The plain trainer makes random batches of a fixed size, padded to their longest by `DataCollatorForSeq2Seq`; the budget of the other is
set so that a step has as many tokens, padding included, on average. Same model, machine and tokenised examples; both sides take turns
within one run. Medians, ranges and the ratio pair by pair are printed, and all figures are kept. By default it is the starter and its
upstream examples, which come with the package.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from figures import Figure, report
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainerCallback,
)

from recross_hf import ExampleTrainer, ExampleTrainingArguments, ReCrossPipeline, load_examples
from recross_hf.core.tables import format_table
from recross_hf.models.tokenization import TokenizedExamples
from recross_hf.training.mixture_sampler import MixtureBatchSampler

PLAIN, OURS = "Seq2SeqTrainer, random batches", "ExampleTrainer, token budget"
WARM_UP = 2


class Meter(TrainerCallback):
    """Times the steps after the first few, and counts what is in them."""

    def __init__(self) -> None:
        self.examples = self.tokens = self.padded = self.steps = 0

    def watch(self, trainer: Trainer) -> None:
        step = trainer.training_step

        def counted(model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
            if trainer.state.global_step >= WARM_UP:
                self.steps += 1
                self.examples += len(inputs["labels"])
                self.tokens += int(inputs["attention_mask"].sum() + (inputs["labels"] != -100).sum())
                self.padded += inputs["input_ids"].numel() + inputs["labels"].numel()
            return step(model, inputs, *args, **kwargs)

        trainer.training_step = counted

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        if state.global_step == WARM_UP:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - getattr(self, "start", 0.0)

    def figures(self) -> dict[str, float]:
        return {
            "examples_per_second": self.examples / self.seconds,
            "seconds": self.seconds,
            "examples": self.examples,
            "padded_tokens_a_step": self.padded / self.steps,
            "padding": 1 - self.tokens / self.padded,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_files", nargs="+", help="upstream examples; the starter's by default")
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--model_name_or_path", help="a sequence-to-sequence model; the starter's by default")
    parser.add_argument("--max_input_length", type=int, default=128)
    parser.add_argument("--max_target_length", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16, help="of the plain trainer")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/upstream_training.json"))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()

    if args.train_files is None or args.model_name_or_path is None:
        pipeline = ReCrossPipeline.from_pretrained()
        model, tokenizer, examples = pipeline.upstream_model, pipeline.processing_class, pipeline.index.dataset
    if args.train_files is not None:
        columns = dict(pair.split("=", 1) for pair in args.columns)
        examples = load_examples(args.train_files, columns=columns)
    if args.model_name_or_path is not None:
        model = AutoModelForSeq2SeqLM.from_pretrained(args.model_name_or_path, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
    model = model.float()
    tokenized = TokenizedExamples(examples, tokenizer, args.max_input_length, args.max_target_length)
    budget = fitting_budget(tokenized, padded_tokens(tokenized, args.batch_size))
    runs: dict[str, list[dict[str, float]]] = {PLAIN: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder:
        common = {
            "output_dir": folder,
            "max_steps": WARM_UP + args.steps,
            "learning_rate": 1e-5,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
            "dataloader_pin_memory": torch.cuda.is_available(),
        }

        def plain(seed: int) -> dict[str, float]:
            meter = Meter()
            trainer = Seq2SeqTrainer(
                copy.deepcopy(model),
                Seq2SeqTrainingArguments(**common, seed=seed, per_device_train_batch_size=args.batch_size),
                train_dataset=tokenized,
                data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
                processing_class=tokenizer,
                callbacks=[meter],
            )
            return run(trainer, meter)

        def ours(seed: int) -> dict[str, float]:
            meter = Meter()
            settings = ExampleTrainingArguments(**common, seed=seed, token_budget=budget)
            trainer = ExampleTrainer(copy.deepcopy(model), settings, processing_class=tokenizer, callbacks=[meter])
            trainer.train_dataset = tokenized
            return run(trainer, meter)

        sides = [(PLAIN, plain), (OURS, ours)]
        for repeat in range(args.repeats):
            # Turn and turn about, so that neither always finds the warmer machine.
            for name, side in sides if repeat % 2 == 0 else reversed(sides):
                runs[name].append(side(repeat))
    speeds = {name: [found["examples_per_second"] for found in side] for name, side in runs.items()}
    ratios = [one / other for one, other in zip(speeds[OURS], speeds[PLAIN], strict=True)]
    rows = [
        [
            name,
            f"{median(speeds[name]):.1f}",
            f"{min(speeds[name]):.1f} to {max(speeds[name]):.1f}",
            f"{median(found['padded_tokens_a_step'] for found in side):.0f}",
            f"{100 * median(found['padding'] for found in side):.0f} %",
        ]
        for name, side in runs.items()
    ]
    header = [
        f"{args.steps} steps, {torch.get_num_threads()} threads",
        "examples/s",
        "range",
        "tokens/step",
        "padding",
    ]
    print(format_table(header, rows))
    print(f"\n{median(ratios):.2f} times the examples a second ({min(ratios):.2f} to {max(ratios):.2f})")
    figure = Figure(
        what=f"upstream training, a token budget of {budget}, {model.num_parameters() / 1e6:.1f} M weights",
        unit="examples/s",
        ours=median(speeds[OURS]),
        peer=median(speeds[PLAIN]),
        peer_name=PLAIN,
        ratio=median(ratios),
        goal=1.3,
    )
    report(
        [figure],
        {
            "data": "upstream mixture" if args.train_files else "starter",
            "num_examples": len(tokenized),
            "num_parameters": model.num_parameters(),
            "max_input_length": args.max_input_length,
            "max_target_length": args.max_target_length,
            "batch_size": args.batch_size,
            "token_budget": budget,
            "steps": args.steps,
            "runs": runs,
            "ratios": ratios,
            "median_ratio": median(ratios),
        },
        args.output,
    )


def run(trainer: Trainer, meter: Meter) -> dict[str, float]:
    trainer.log = lambda logs, start_time=None: None  # a line for each run says nothing here
    meter.watch(trainer)
    trainer.train()
    return meter.figures()


def padded_tokens(examples: TokenizedExamples, batch_size: int) -> float:
    """Mean tokens, padding included, of random batches of a fixed size."""
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0)).numpy()
    batches = [order[start : start + batch_size] for start in range(0, len(order) - batch_size + 1, batch_size)]
    return sum(tokens_of(examples, batch) for batch in batches) / len(batches)


def fitting_budget(examples: TokenizedExamples, target: float) -> int:
    """The budget with which batches have `target` tokens on average."""
    budget = target
    for _ in range(4):
        lengths = examples.input_lengths, examples.target_lengths
        batches = list(MixtureBatchSampler(*lengths, examples.tasks, token_budget=round(budget)))
        budget *= target / (sum(tokens_of(examples, batch) for batch in batches) / len(batches))
    return round(budget)


def tokens_of(examples: TokenizedExamples, batch: Any) -> int:
    return len(batch) * int(examples.input_lengths[batch].max() + examples.target_lengths[batch].max())


if __name__ == "__main__":
    main()
