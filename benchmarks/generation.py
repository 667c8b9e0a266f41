"""Answers a second: `generate_texts` against `Seq2SeqTrainer.predict`, text to text, and `ExampleTrainer.predict` beside them.

    python benchmarks/generation.py
    python benchmarks/generation.py --model minilm --inputs 'target/*/test.parquet' --columns id=example_id --max_new_tokens 16

The first is the starter on the test sets of its unseen tasks. The trainer of `transformers` is given each batch size of
`--batch_sizes`, once each, and the fastest goes into the comparison. The contenders then take turns on the same inputs, with the same
lengths and beams; medians and the ratio pair by pair are printed, and all timings are kept. Answers are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from datasets import Dataset
from figures import Figure, report
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
)

from recross_hf import (
    ExampleTrainer,
    ExampleTrainingArguments,
    ReCrossPipeline,
    load_model,
    load_queries,
    load_starter_task,
    starter_tasks,
)
from recross_hf.core.files import read_json
from recross_hf.core.tables import format_table
from recross_hf.data.files import files_of
from recross_hf.models.generation import generate_texts

PEER, OURS, OURS_IN_TRAINER = "Seq2SeqTrainer.predict", "generate_texts", "ExampleTrainer.predict"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a sequence-to-sequence model; the starter by default")
    parser.add_argument("--inputs", nargs="+", help="examples; the starter's test sets by default")
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--num_inputs", type=int, default=1000)
    parser.add_argument("--max_input_length", type=int, default=128)
    parser.add_argument("--max_new_tokens", type=int, default=16)
    parser.add_argument("--num_beams", type=int, nargs="+", default=[1, 4])
    parser.add_argument(
        "--batch_sizes", type=int, nargs="+", default=[8, 32, 64], help="of the peer, which has the best"
    )
    parser.add_argument("--token_budgets", type=int, nargs="*", default=[], help="to compare, the default besides")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/generation.json"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()

    if args.model is None:
        pipeline = ReCrossPipeline.from_pretrained()
        model, tokenizer = pipeline.upstream_model, pipeline.processing_class
    else:
        model, tokenizer = load_model(args.model), AutoTokenizer.from_pretrained(args.model)
    texts = _texts(args.inputs, args.columns, args.num_inputs)
    name = Path(args.model).name if args.model else "starter"
    found = [
        _compare(model.eval(), tokenizer, texts, args, num_beams) | {"model": name} for num_beams in args.num_beams
    ]
    kept = read_json(args.output)["comparisons"] if args.output.is_file() else []
    measured = {(one["model"], one["num_beams"]) for one in found}
    comparisons = [one for one in kept if (one["model"], one["num_beams"]) not in measured] + found
    report([figure_of(comparison) for comparison in comparisons], {"comparisons": comparisons}, args.output)


def figure_of(comparison: dict[str, Any]) -> Figure:
    """Inputs a second."""
    number, beams = comparison["num_inputs"], comparison["num_beams"]
    ours, peer = (number / median(comparison["seconds"][name]) for name in (OURS, PEER))
    return Figure(
        what=f"generation, {comparison['model']}, {number:,} inputs, {'greedy' if beams == 1 else f'{beams} beams'}",
        unit="inputs/s",
        ours=ours,
        peer=peer,
        peer_name=f"{PEER}, batches of {comparison['batch_size']}",
        ratio=comparison["ratios"][OURS],
        goal=1.5,
    )


def _texts(inputs: list[str] | None, columns: list[str], number: int) -> list[str]:
    """As many inputs, shuffled: tasks come one after another in no batch."""
    if inputs is None:
        texts = [text for task in starter_tasks() for text in load_starter_task(task)[1]["input"]]
    else:
        mapped = dict(pair.split("=", 1) for pair in columns if not pair.startswith("references="))
        files = [file for pattern in inputs for file in files_of(pattern)]
        texts = [text for file in files for text in load_queries(str(file), columns=mapped)["input"]]
    order = np.random.default_rng(0).permutation(len(texts))[:number]
    return [texts[row] for row in order]


def _compare(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: list[str],
    args: argparse.Namespace,
    num_beams: int,
) -> dict[str, Any]:
    lengths = {"max_input_length": args.max_input_length, "max_new_tokens": args.max_new_tokens}
    with tempfile.TemporaryDirectory() as folder:
        tuning = {}
        for size in args.batch_sizes:
            peer = _peer(model, tokenizer, texts, args, num_beams, size, folder)
            tuning[size], _ = _timed(peer)
        best = min(tuning, key=tuning.get)
        contenders: dict[str, Callable[[], list[str]]] = {
            PEER: _peer(model, tokenizer, texts, args, num_beams, best, folder),
            OURS: lambda: generate_texts(model, tokenizer, texts, num_beams=num_beams, **lengths),
            OURS_IN_TRAINER: _trainer(model, tokenizer, texts, args, num_beams, best, folder),
        }
        for budget in args.token_budgets:
            contenders[f"{OURS}, budget {budget}"] = lambda budget=budget: generate_texts(
                model, tokenizer, texts, num_beams=num_beams, token_budget=budget, **lengths
            )
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        answers: dict[str, list[str]] = {}
        for _ in range(args.repeats):
            for name, answer in contenders.items():
                duration, answers[name] = _timed(answer)
                seconds[name].append(duration)
    ratios = {
        name: median(a / b for a, b in zip(seconds[PEER], times, strict=True)) for name, times in seconds.items()
    }
    differing = {
        name: sum(ours != theirs for ours, theirs in zip(found, answers[PEER], strict=True))
        for name, found in answers.items()
    }
    rows = [
        [name, f"{len(texts) / median(times):.1f}", f"{ratios[name]:.2f}", str(differing[name])]
        for name, times in seconds.items()
    ]
    header = [f"{len(texts)} inputs, {num_beams} beams, peer's batch {best}", "inputs/s", "ratio", "other answers"]
    print(format_table(header, rows) + "\n", flush=True)
    return {
        "num_inputs": len(texts),
        "num_beams": num_beams,
        **lengths,
        "threads": torch.get_num_threads(),
        "device": str(model.device),
        "seconds_of_batch_sizes": tuning,
        "batch_size": best,
        "seconds": seconds,
        "ratios": ratios,
        "other_answers": differing,
        "distinct_answers": len(set(answers[PEER])),
    }


def _timed(answer: Callable[[], list[str]]) -> tuple[float, list[str]]:
    """Seconds, and what was answered. On a CPU those of the process, which other work on the machine does not lengthen."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    start = clock()
    answers = answer()
    return clock() - start, answers


def _peer(model, tokenizer, texts, args, num_beams, batch_size, folder) -> Callable[[], list[str]]:
    """Tokenises, predicts and decodes as the scripts of `transformers` do."""
    trainer = Seq2SeqTrainer(
        model,
        Seq2SeqTrainingArguments(
            folder,
            predict_with_generate=True,
            per_device_eval_batch_size=batch_size,
            report_to="none",
            disable_tqdm=True,
        ),
        data_collator=DataCollatorWithPadding(tokenizer),
        processing_class=tokenizer,
    )

    def answer() -> list[str]:
        token_ids = tokenizer(texts, truncation=True, max_length=args.max_input_length, return_token_type_ids=False)
        dataset = Dataset.from_dict(dict(token_ids))
        model.generation_config.max_length = None
        found = trainer.predict(dataset, max_new_tokens=args.max_new_tokens, num_beams=num_beams).predictions
        found = np.where(found < 0, tokenizer.pad_token_id, found)
        return [text.strip() for text in tokenizer.batch_decode(found, skip_special_tokens=True)]

    return answer


def _trainer(model, tokenizer, texts, args, num_beams, batch_size, folder) -> Callable[[], list[str]]:
    trainer = ExampleTrainer(
        model,
        ExampleTrainingArguments(
            folder,
            per_device_eval_batch_size=batch_size,
            generation_num_beams=num_beams,
            max_input_length=args.max_input_length,
            max_target_length=args.max_new_tokens,
            report_to="none",
            disable_tqdm=True,
        ),
        processing_class=tokenizer,
    )
    examples = Dataset.from_dict({"input": texts})
    return lambda: trainer.decode(trainer.predict(examples).predictions)


if __name__ == "__main__":
    main()
