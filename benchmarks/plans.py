"""Plans beside what came of them: the long runs on the starter, and twice as much of each.

    python benchmarks/plans.py

Each plan and each run has a process of its own, one after another. Estimated and measured are the seconds of the work (libraries, model and
examples being loaded), the peak memory of the process, and the bytes below the output folder at their most, looked at five times a
second. Kept in benchmarks/results/plans.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import recross_hf
from recross_hf import (
    DenseRetriever,
    ExampleTrainer,
    ExampleTrainingArguments,
    MeanPooledEncoder,
    ReCrossPipeline,
    RerankerTrainer,
    RerankerTrainingArguments,
    SupervisionArguments,
    evaluate_methods,
    load_examples,
    load_model,
    mine_supervision,
    paper_methods,
    starter_target_task,
    starter_tasks,
)
from recross_hf.core.files import write_json, write_parquet
from recross_hf.core.tables import format_table
from recross_hf.planning.evaluation import plan_evaluation
from recross_hf.planning.index import plan_index
from recross_hf.planning.mining import plan_mining
from recross_hf.planning.plan import Plan, duration, size
from recross_hf.planning.resources import peak_memory
from recross_hf.planning.training import plan_training

STARTER = Path(recross_hf.__file__).parent / "starter_data"


class Work(NamedTuple):
    """A run of `amount`, and its plan."""

    amount: str
    plan: Callable[[], Plan]
    run: Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(STARTER / "upstream_model"), help="indexed with, and trained")
    parser.add_argument("--train_files", nargs="+", default=[str(STARTER / "index" / "examples.parquet")])
    parser.add_argument("--pipeline", help="mined for and benchmarked; the starter by default")
    parser.add_argument("--copies", type=float, nargs="+", default=[1.0, 2.0], help="of the work")
    parser.add_argument("--work", nargs="+", default=list(WORKS), choices=list(WORKS))
    parser.add_argument("--max_input_length", type=int, default=128)
    parser.add_argument("--token_budget", type=int, default=2048)
    parser.add_argument(
        "--processor_time",
        action="store_true",
        help="count the seconds that the processor gave to the process, for a machine that is shared; one thread, no GPU",
    )
    parser.add_argument("--part", nargs=3, help="used by this script itself: work, copies, plan or run")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/plans.json"))
    args = parser.parse_args()
    if args.part:
        name, copies, part = args.part
        if args.processor_time:
            time.perf_counter = time.process_time  # the clock of plans, too
        with tempfile.TemporaryDirectory() as folder:
            work = WORKS[name](args, float(copies), folder)
            print(json.dumps(planned(work) if part == "plan" else measured(work, folder)))
        return

    results = []
    for name in args.work:
        for copies in args.copies:
            found = {}
            for part in ("plan", "run"):
                command = [sys.executable, __file__, *sys.argv[1:], "--part", name, str(copies), part]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[part] = json.loads(done.stdout.splitlines()[-1])
                found[part]["load"] = os.getloadavg()[0]
            results.append({"work": name, "copies": copies, **found})
            write_json(args.output, results)
    rows = []
    for result in results:
        plan, run = result["plan"], result["run"]
        for figure, show in (("seconds", duration), ("memory", size), ("disk", size)):
            row = [f"{result['work']}, {plan['amount']}: {figure}", show(plan[figure]), show(run[figure])]
            rows.append([*row, f"{plan[figure] / run[figure]:.2f}"])
    print(format_table(["", "estimated", "measured", "ratio"], rows))


def examples_of(args: argparse.Namespace, copies: float) -> Dataset:
    """So many times the examples; what is beyond whole times is a random part of them."""
    examples = load_examples(args.train_files)
    part = examples.shuffle(seed=0).select(range(round(len(examples) * (copies % 1))))
    return concatenate_datasets([*[examples] * int(copies), part])


def index(args: argparse.Namespace, copies: float, folder: str) -> Work:
    model, tokenizer = load_model(args.model), AutoTokenizer.from_pretrained(args.model)
    examples = examples_of(args, copies)
    encoder = MeanPooledEncoder(model, tokenizer, max_length=args.max_input_length)
    return Work(
        f"{len(examples):,} examples",
        lambda: plan_index(examples, encoder, folder, model=model),
        lambda: ReCrossPipeline.build(model, tokenizer, examples, folder, encoder=encoder),
    )


def training(args: argparse.Namespace, copies: float, folder: str) -> Work:
    model, tokenizer = load_model(args.model), AutoTokenizer.from_pretrained(args.model)
    examples = examples_of(args, copies)
    settings = ExampleTrainingArguments(
        folder,
        max_input_length=args.max_input_length,
        max_target_length=16,
        token_budget=args.token_budget,
        num_train_epochs=1,
        save_steps=50,
        save_total_limit=2,
        use_cpu=True,
        disable_tqdm=True,
    )

    def make_trainer(data: Dataset, arguments: ExampleTrainingArguments) -> ExampleTrainer:
        return ExampleTrainer(model, arguments, train_dataset=data, processing_class=tokenizer)

    return Work(
        f"{len(examples):,} examples",
        lambda: plan_training(make_trainer, examples, settings),
        lambda: train(make_trainer(examples, settings)),
    )


def mining(args: argparse.Namespace, copies: float, folder: str) -> Work:
    pipeline = ReCrossPipeline.from_pretrained(args.pipeline)
    settings = SupervisionArguments(num_query_sets=round(16 * copies), max_input_length=args.max_input_length)
    retriever, examples = DenseRetriever(pipeline.index), pipeline.index.dataset
    what = (pipeline.upstream_model, pipeline.processing_class, retriever, examples, folder, settings)

    def mine() -> None:
        pairs = mine_supervision(*what)
        write_parquet(pairs, Path(folder) / "pairs.parquet")

    return Work(f"{settings.num_query_sets} query sets", lambda: plan_mining(*what), mine)


def reranker(args: argparse.Namespace, copies: float, folder: str) -> Work:
    """Of pairs as mining gives them, 8 queries a set with 16 candidates each; utilities are drawn at random, which costs as much."""
    name = STARTER / "reranker"
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=1, dtype="float32")
    rng, num_sets = np.random.default_rng(0), round(40 * copies)
    examples = load_examples(args.train_files).shuffle(seed=0).select(range(24 * num_sets))
    pairs = []
    for first in range(0, 24 * num_sets, 24):
        queries, candidates = examples[first : first + 8], examples[first + 8 : first + 24]
        utility = rng.normal(size=16)
        pairs += [
            {
                "set": first // 24,
                "query": queries["input"][query],
                "candidate": candidates["input"][place],
                "label": int(utility[place] > np.median(utility)),
                "utility": utility[place],
                "query_task": queries["task"][0],  # a set is of one task, which these queries are not
                "candidate_task": candidates["task"][place],
                "query_id": queries["id"][query],
                "candidate_id": candidates["id"][place],
                "answer": candidates["references"][place][0],
                "rank": place,
            }
            for query in range(8)
            for place in range(16)
        ]
    held_out = 128 * max(num_sets // 10, 1)  # whole sets
    dev, train_pairs = Dataset.from_list(pairs[:held_out]), Dataset.from_list(pairs[held_out:])
    settings = RerankerTrainingArguments(
        folder, num_train_epochs=2, eval_strategy="epoch", save_strategy="epoch", use_cpu=True, disable_tqdm=True
    )

    def make_trainer(data: Dataset, arguments: RerankerTrainingArguments) -> RerankerTrainer:
        tokenizer = AutoTokenizer.from_pretrained(name)
        return RerankerTrainer(model, arguments, train_dataset=data, eval_dataset=dev, processing_class=tokenizer)

    sample = dev.select(range(min(256, len(dev))))  # two whole sets

    def run() -> None:
        trainer = make_trainer(train_pairs, settings)
        train(trainer)
        trainer.evaluate()

    return Work(
        f"{len(train_pairs):,} pairs",
        lambda: plan_training(make_trainer, train_pairs, settings, eval_sample=sample, num_eval_examples=len(dev)),
        run,
    )


def benchmark(args: argparse.Namespace, copies: float, folder: str) -> Work:
    pipeline = ReCrossPipeline.from_pretrained(args.pipeline)
    tasks = [starter_target_task(name).limited(200, round(2 * copies)) for name in starter_tasks()[:3]]
    methods = paper_methods(pipeline, ("none", "random", "dense", "recross"))
    num_sets = sum(len(task.query_sets) for task in tasks)
    cells = sum(len(tasks) if method.name == "none" else num_sets for method in methods)
    return Work(
        f"{cells} cells",
        lambda: plan_evaluation(pipeline, tasks, methods, folder, show_progress=False),
        lambda: evaluate_methods(pipeline, tasks, methods, folder, show_progress=False),
    )


WORKS: dict[str, Callable[[argparse.Namespace, float, str], Work]] = {
    "index": index,
    "training": training,
    "mining": mining,
    "reranker": reranker,
    "benchmark": benchmark,
}


def train(trainer: ExampleTrainer | RerankerTrainer) -> None:
    trainer.train()
    trainer.save_model()


def planned(work: Work) -> dict[str, Any]:
    start = time.perf_counter()
    plan = work.plan()
    seconds = dataclasses.asdict(plan.seconds)
    return {
        "amount": work.amount,
        "seconds": seconds["expected"],
        "low": seconds["low"],
        "high": seconds["high"],
        "memory": plan.memory,
        "disk": plan.disk,
        "probe_seconds": time.perf_counter() - start,
    }


def measured(work: Work, folder: str) -> dict[str, float]:
    sizes, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            sizes.append(bytes_below(folder))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    start = time.perf_counter()
    work.run()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "memory": peak_memory(), "disk": max(*sizes, bytes_below(folder))}


def bytes_below(folder: str) -> int:
    total = 0
    for parent, _, files in os.walk(folder):  # which passes over folders that vanish meanwhile, as `rglob` does not
        for name in files:
            with suppress(FileNotFoundError):  # renamed or deleted since it was listed
                total += os.stat(os.path.join(parent, name)).st_size
    return total


if __name__ == "__main__":
    main()
