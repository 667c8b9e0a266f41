"""Plans beside what came of them: the starter's examples indexed and trained on, and twice as many.

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
from pathlib import Path

from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer

import recross_hf
from recross_hf import (
    ExampleTrainer,
    ExampleTrainingArguments,
    MeanPooledEncoder,
    ReCrossPipeline,
    load_examples,
    load_model,
)
from recross_hf.files import write_json
from recross_hf.plan import duration, peak_memory, size
from recross_hf.probing import plan_index, plan_training
from recross_hf.report import format_table

STARTER = Path(recross_hf.__file__).parent / "starter_data"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(STARTER / "upstream_model"))
    parser.add_argument("--train_files", nargs="+", default=[str(STARTER / "index" / "examples.parquet")])
    parser.add_argument("--copies", type=float, nargs="+", default=[1.0, 2.0], help="of the examples")
    parser.add_argument("--work", nargs="+", default=["index", "training"], choices=["index", "training"])
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
        work, copies, part = args.part
        if args.processor_time:
            time.perf_counter = time.process_time  # the clock of plans, too
        with tempfile.TemporaryDirectory() as folder:
            measured = {"index": index, "training": training}[work](args, float(copies), part, folder)
        print(json.dumps(measured))
        return

    results = []
    for work in args.work:
        for copies in args.copies:
            found = {}
            for part in ("plan", "run"):
                command = [sys.executable, __file__, *sys.argv[1:], "--part", work, str(copies), part]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found[part] = json.loads(done.stdout.splitlines()[-1])
                found[part]["load"] = os.getloadavg()[0]
            results.append({"work": work, "copies": copies, **found})
            write_json(args.output, results)
    rows = []
    for result in results:
        plan, run = result["plan"], result["run"]
        for name, show in (("seconds", duration), ("memory", size), ("disk", size)):
            row = [f"{result['work']}, {plan['num_examples']:,} examples: {name}", show(plan[name]), show(run[name])]
            rows.append([*row, f"{plan[name] / run[name]:.2f}"])
    print(format_table(["", "estimated", "measured", "ratio"], rows))


def examples_of(args: argparse.Namespace, copies: float) -> Dataset:
    """So many times the examples; what is beyond whole times is a random part of them."""
    examples = load_examples(args.train_files)
    part = examples.shuffle(seed=0).select(range(round(len(examples) * (copies % 1))))
    return concatenate_datasets([*[examples] * int(copies), part])


def index(args: argparse.Namespace, copies: float, part: str, folder: str) -> dict[str, float]:
    model, tokenizer = load_model(args.model), AutoTokenizer.from_pretrained(args.model)
    examples = examples_of(args, copies)
    encoder = MeanPooledEncoder(model, tokenizer, max_length=args.max_input_length)
    if part == "plan":
        return planned(lambda: plan_index(examples, encoder, folder, model=model), len(examples))
    return measured(lambda: ReCrossPipeline.build(model, tokenizer, examples, folder, encoder=encoder), folder)


def training(args: argparse.Namespace, copies: float, part: str, folder: str) -> dict[str, float]:
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

    if part == "plan":
        return planned(lambda: plan_training(make_trainer, examples, settings), len(examples))

    def train() -> None:
        trainer = make_trainer(examples, settings)
        trainer.train()
        trainer.save_model()

    return measured(train, folder)


def planned(make_plan, num_examples: int) -> dict[str, float]:
    start = time.perf_counter()
    plan = make_plan()
    seconds = dataclasses.asdict(plan.seconds)
    return {
        "num_examples": num_examples,
        "seconds": seconds["expected"],
        "low": seconds["low"],
        "high": seconds["high"],
        "memory": plan.memory,
        "disk": plan.disk,
        "probe_seconds": time.perf_counter() - start,
    }


def measured(work, folder: str) -> dict[str, float]:
    sizes, done = [0], threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            sizes.append(bytes_below(folder))

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {"seconds": seconds, "memory": peak_memory(), "disk": max(*sizes, bytes_below(folder))}


def bytes_below(folder: str) -> int:
    total = 0
    for path in Path(folder).rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # renamed or deleted since it was listed
            continue
    return total


if __name__ == "__main__":
    main()
