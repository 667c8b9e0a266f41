"""Prompts that stand below the same examples: read once (`generate_texts`, `rank_choices`) against each prompt read whole.

    OMP_NUM_THREADS=1 python benchmarks/shared_prefix.py
    python benchmarks/shared_prefix.py --model_name_or_path gemma-3-270m --num_examples 4 16

By default a random Llama of a small shape, and the starter's tokenizer and unseen tasks: each input stands below the same few examples.
Both sides are this library's, with the same budgets and lengths; the one is told that nothing is worth sharing. They take turns on the same
prompts, medians and the ratio pair by pair are printed, and all timings are kept. Answers are compared. Seconds are those of the process on a
CPU, which other work on the machine does not lengthen where `OMP_NUM_THREADS` is 1.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets import concatenate_datasets
from figures import Figure, report
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from recross_hf import ReCrossPipeline, load_model, load_starter_task, starter_tasks
from recross_hf.evaluation.in_context import in_context_prompts
from recross_hf.models import shared_prefix
from recross_hf.models.architectures import DECODER_ONLY
from recross_hf.models.generation import generate_texts
from recross_hf.models.likelihood import rank_choices

PEER = "each prompt whole"
CHOICES = ["yes", "no", "it is not possible to tell", "maybe"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", help="a decoder-only model; a random Llama by default")
    parser.add_argument("--num_inputs", type=int, default=64)
    parser.add_argument("--num_examples", type=int, nargs="+", default=[4, 12], help="above each input")
    parser.add_argument("--max_new_tokens", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/shared_prefix.json"))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()

    model, tokenizer = prepared(args.model_name_or_path)
    pool = concatenate_datasets([load_starter_task(task)[1] for task in starter_tasks()]).shuffle(seed=0)
    figures, raw = [], {}
    for number in args.num_examples:
        asked = pool["input"][number : number + args.num_inputs]
        rows = np.broadcast_to(np.arange(number), (len(asked), number))
        lengths = {"max_input_length": 1024, "max_answer_length": args.max_new_tokens}
        prompts = in_context_prompts(model, tokenizer, asked, pool, rows, **lengths).texts
        found = compare(model, tokenizer, prompts, args, number)
        figures += found[0]
        raw[f"{number} examples"] = found[1]
    raw |= {"threads": torch.get_num_threads(), "device": str(model.device)}
    report(figures, raw, args.output)


def prepared(name_or_path: str | None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and its tokenizer."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if name_or_path is not None:
        return load_model(name_or_path).to(device).eval(), AutoTokenizer.from_pretrained(name_or_path)
    tokenizer = ReCrossPipeline.from_pretrained().processing_class
    tokenizer.model_max_length = 2048  # that of the starter is short
    config = LlamaConfig(
        vocab_size=8_192,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=8,
        num_attention_heads=4,
        max_position_embeddings=2048,
        initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).to(device).eval(), tokenizer


def compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    args: argparse.Namespace,
    number: int,
) -> tuple[list[Figure], dict[str, Any]]:
    token_ids = DECODER_ONLY.prompt_ids(tokenizer, prompts, 1024)
    length = float(np.mean([len(ids) for ids in token_ids]))
    shared = shared_prefix.shared_prefix(model, token_ids).length
    limits = {"max_input_length": 1024}
    work: dict[str, Callable[[], list[Any]]] = {
        "generation": lambda: generate_texts(model, tokenizer, prompts, max_new_tokens=args.max_new_tokens, **limits),
        "rank_choices, 4 each": lambda: rank_choices(model, tokenizer, prompts, [CHOICES] * len(prompts), **limits),
    }
    figures, raw = [], {"tokens": length, "shared_tokens": shared}
    for what, answer in work.items():
        seconds: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(args.repeats):
            ours, theirs = timed(answer, seconds["ours"]), timed(lambda: whole(answer), seconds["peer"])  # noqa: B023
        differing = sum(one != other for one, other in zip(ours, theirs, strict=True))
        raw[what] = {"seconds": seconds, "other_answers": differing}
        figures.append(
            Figure(
                what=f"{what}, {len(prompts)} prompts of {length:.0f} tokens below {number} examples, {shared} tokens shared",
                unit="inputs/s",
                ours=len(prompts) / median(seconds["ours"]),
                peer=len(prompts) / median(seconds["peer"]),
                peer_name=PEER,
                ratio=median(b / a for a, b in zip(seconds["ours"], seconds["peer"], strict=True)),
            )
        )
    return figures, raw


def whole(answer: Callable[[], list[Any]]) -> list[Any]:
    """The same with nothing shared."""
    least, shared_prefix.LEAST_TOKENS = shared_prefix.LEAST_TOKENS, 1 << 30
    try:
        return answer()
    finally:
        shared_prefix.LEAST_TOKENS = least


def timed(answer: Callable[[], list[Any]], seconds: list[float]) -> list[Any]:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    found = answer()
    seconds.append(clock() - start)
    return found


if __name__ == "__main__":
    main()
