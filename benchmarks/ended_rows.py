"""Answers of unequal length: rows leave a batch once they have ended, beside batches that keep them and `generate` in batches as they come.

    OMP_NUM_THREADS=1 python benchmarks/ended_rows.py
    python benchmarks/ended_rows.py --model_name_or_path gemma-upstream --files 'upstream/*/dev.parquet' \
        --columns references=outputs id=example_id --max_new_tokens 24

By default the starter's upstream model answers inputs of its upstream tasks. The two ways of this library have the same budgets and
lengths; the one is told that no row may leave. All sides take turns on the same inputs; medians and ratios turn by turn are printed,
all timings are kept, and answers are compared. A row-step is a row for which a token is computed. Seconds are those of the process on a CPU,
which other work on the machine does not lengthen where `OMP_NUM_THREADS` is 1; on a GPU they are the wall's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import torch
import transformers
from figures import Figure, report
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from recross_hf import ReCrossPipeline, load_examples
from recross_hf.models import ended_rows
from recross_hf.models.adapters import load_upstream_model, load_upstream_tokenizer
from recross_hf.models.architectures import architecture_of
from recross_hf.models.base import unwrapped
from recross_hf.models.collators import pad_token_id, padded
from recross_hf.models.decoding import one_answer
from recross_hf.models.generation import generate_texts

OURS, STAY, PLAIN = "rows leave", "all rows stay", "model.generate, batches of 16 as they come"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model_name_or_path", help="any text-to-text model or adapter; the starter's upstream model by default"
    )
    parser.add_argument("--files", nargs="+", help="examples; the starter's upstream ones by default")
    parser.add_argument("--columns", nargs="*", default=[], help="their columns")
    parser.add_argument("--num_inputs", type=int, default=200, help="drawn at random")
    parser.add_argument("--max_input_length", type=int, default=256)
    parser.add_argument("--max_new_tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/ended_rows.json"))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    model, tokenizer, inputs = prepared(args)
    limits = {"max_input_length": args.max_input_length, "max_new_tokens": args.max_new_tokens}

    def stay() -> list[str]:
        with all_stay():
            return generate_texts(model, tokenizer, inputs, **limits)

    sides: dict[str, Callable[[], list[str]]] = {
        OURS: lambda: generate_texts(model, tokenizer, inputs, **limits),
        STAY: stay,
        PLAIN: lambda: plain(model, tokenizer, inputs, args),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers, steps = {}, {}
    for repeat in range(args.repeats):
        for name in sides if repeat % 2 == 0 else reversed(sides):
            with row_steps(model) as counted:
                start = clock()
                answers[name] = sides[name]()
                seconds[name].append(clock() - start)
            steps[name] = sum(counted)
    figures = []
    for name in (STAY, PLAIN):
        others = sum(one != other for one, other in zip(answers[OURS], answers[name], strict=True))
        figures.append(
            Figure(
                what=f"{len(inputs)} answers, {others} others, {steps[OURS]} row-steps beside {steps[name]}",
                unit="inputs/s",
                ours=len(inputs) / median(seconds[OURS]),
                peer=len(inputs) / median(seconds[name]),
                peer_name=name,
                ratio=median(b / a for a, b in zip(seconds[OURS], seconds[name], strict=True)),
                goal=3.0 if name == PLAIN else None,
            )
        )
    raw = {
        "model": Path(args.model_name_or_path or "the starter's").name,
        "seconds": seconds,
        "row_steps": steps,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        **limits,
    }
    report(figures, raw, args.output)


def prepared(args: argparse.Namespace) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[str]]:
    """The model, its tokenizer and the inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipeline = None if args.model_name_or_path and args.files else ReCrossPipeline.from_pretrained()
    if args.model_name_or_path is None:
        model, tokenizer = pipeline.upstream_model, pipeline.processing_class
    else:
        model, tokenizer = (load(args.model_name_or_path) for load in (load_upstream_model, load_upstream_tokenizer))
    if args.files is None:
        examples = pipeline.index.dataset
    else:
        examples = load_examples(args.files, columns=dict(pair.split("=", 1) for pair in args.columns))
    rows = examples.shuffle(seed=0).select(range(min(args.num_inputs, len(examples))))
    return model.to(device).eval(), tokenizer, rows["input"]


def clock() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def row_steps(model: PreTrainedModel) -> Iterator[list[int]]:
    """Rows of each step of decoding."""
    rows: list[int] = []
    head = unwrapped(model).get_output_embeddings()
    handle = head.register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    try:
        yield rows
    finally:
        handle.remove()


@contextmanager
def all_stay() -> Iterator[None]:
    least, ended_rows.LEAST_LEAVING = ended_rows.LEAST_LEAVING, 1 << 30
    try:
        yield
    finally:
        ended_rows.LEAST_LEAVING = least


@torch.inference_mode()
def plain(model: Any, tokenizer: PreTrainedTokenizerBase, inputs: list[str], args: argparse.Namespace) -> list[str]:
    """What a user would write: batches as they come, padded on the side of the model's kind."""
    architecture, pad = architecture_of(model), pad_token_id(tokenizer)
    texts = []
    for start in range(0, len(inputs), 16):
        prompts = architecture.prompt_ids(tokenizer, inputs[start : start + 16], args.max_input_length)
        batch = padded(prompts, pad, architecture.padding_side(tokenizer))
        batch = {name: values.to(model.device) for name, values in batch.items()}
        found = model.generate(**batch, **one_answer(model, tokenizer), max_new_tokens=args.max_new_tokens)
        found = architecture.continuations(found, batch["input_ids"])
        texts += tokenizer.batch_decode(found, skip_special_tokens=True)
    return [text.strip() for text in texts]


if __name__ == "__main__":
    main()
