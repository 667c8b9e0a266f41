"""Preparing upstream data: time and peak memory against the number of examples.

    python benchmarks/preparing.py --num_rows 100000 300000 1000000

One task of made-up rows (two texts of some 60 words and a label, as in PromptSource's data sets for inference), rendered by one of
three templates each, freed of repetitions and compared with 10,000 target texts. Each size is a process of its own, whose memory is
read every 20 ms while it prepares. The limit is 1,000 MB at a million examples, and time in proportion to their number.
Kept in benchmarks/results/preparing.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from figures import Figure, report

from recross_hf import Decontaminator, MixtureArguments, TaskSource, prepare_mixture
from recross_hf.core.tables import format_table

LIMIT_MB = 1000.0
TEMPLATES = """
dataset: made_up
templates:
  a: {name: follows, jinja: "{{premise}} Does it follow that {{hypothesis}}? ||| {{answer_choices[label]}}", answer_choices: "yes ||| no"}
  b: {name: guess, jinja: "Guess. {{premise}} Therefore {{hypothesis}} ||| {{answer_choices[label]}}", answer_choices: "true ||| false"}
  c: {name: only premise, jinja: "{{premise}} Yes or no? ||| {{answer_choices[label]}}", answer_choices: "yes ||| no"}
"""


def write_rows(path: Path, num_rows: int) -> None:
    generator = np.random.default_rng(0)
    words = np.asarray([f"word{number}" for number in range(20_000)])
    schema = pa.schema([("premise", pa.string()), ("hypothesis", pa.string()), ("label", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_rows, 10_000):
            number = min(10_000, num_rows - start)
            premises = [" ".join(row) for row in words[generator.integers(0, len(words), (number, 48))]]
            hypotheses = [" ".join(row) for row in words[generator.integers(0, len(words), (number, 12))]]
            labels = generator.integers(0, 2, number)
            writer.write_table(pa.table([premises, hypotheses, labels.tolist()], schema=schema))


def target_texts() -> Decontaminator:
    generator = np.random.default_rng(1)
    texts = [" ".join(f"other{word}" for word in row) for row in generator.integers(0, 20_000, (10_000, 60))]
    columns = {"id": [str(row) for row in range(len(texts))], "task": ["target"] * len(texts), "input": texts}
    return Decontaminator.of([Dataset.from_dict(columns)])


class Memory(threading.Thread):
    """Reads the memory of this process until the `with` block ends."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.done = threading.Event()

    def __enter__(self) -> Memory:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.done.set()
        self.join()

    def run(self) -> None:
        process = psutil.Process()
        while not self.done.wait(0.02):
            self.peak = max(self.peak, process.memory_info().rss)


def prepare(num_rows: int, num_proc: int) -> dict[str, float]:
    """Times one run in this process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        write_rows(path, num_rows)
        (Path(folder) / "made_up.yaml").write_text(TEMPLATES)
        source = TaskSource("made_up", files=str(path), templates=str(Path(folder) / "made_up.yaml"))
        args = MixtureArguments(max_examples_per_task=num_rows, max_dev_examples_per_task=500, templates_per_example=1)
        targets = target_texts()
        before = psutil.Process().memory_info().rss
        start = time.perf_counter()
        with Memory() as memory:
            report = prepare_mixture([source], Path(folder) / "out", args, targets=targets, num_proc=num_proc)[
                "made_up"
            ]
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "num_rows": num_rows,
        "num_proc": num_proc,
        "examples": report["train"] + report["dev"],
        "seconds": seconds,
        "before_mb": before / 1e6,
        "while_preparing_mb": memory.peak / 1e6,
        "peak_of_process_mb": peak * 1024 / 1e6,
        "largest_child_mb": children * 1024 / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--num_proc", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/preparing.json"))
    parser.add_argument("--one", action="store_true", help="run the one size in this process and print its figures")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(prepare(args.num_rows[0], args.num_proc)))
        return
    results = []
    for num_rows in args.num_rows:
        command = [sys.executable, __file__, "--one", "--num_rows", str(num_rows), "--num_proc", str(args.num_proc)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    rows = [
        [
            f"{result['examples']:,}",
            f"{result['seconds']:.0f} s",
            f"{1e6 * result['seconds'] / result['examples']:.0f} us",
            f"{result['before_mb']:.0f} MB",
            f"{result['while_preparing_mb']:.0f} MB",
            f"{result['peak_of_process_mb']:.0f} MB",
        ]
        for result in results
    ]
    print(format_table(["examples", "time", "an example", "before", "while preparing", "peak of the process"], rows))
    figures = [
        Figure(
            what=f"preparing {result['examples']:,} upstream examples: peak memory",
            unit="MB",
            ours=result["while_preparing_mb"],
            peer=LIMIT_MB,
            peer_name="the limit",
            ratio=result["while_preparing_mb"] / LIMIT_MB,
            goal=1.0,
            at_most=True,
        )
        for result in results
    ]
    report(figures, {"sizes": results}, args.output)


if __name__ == "__main__":
    main()
