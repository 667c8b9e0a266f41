"""What does the safety gate save, and what does it cost? Adaptations of the starter with each gate and without one.

    python benchmarks/safety_gate.py
    python benchmarks/safety_gate.py --tasks bus_stop letter_stamp village_race lost_property --query_sets 1

Dense retrieval mostly helps there, examples drawn at random mostly harm, and a learning rate thirty times as large may do anything.
Each adaptation runs with `gate="form"`, on all retrieved examples, and with `gate="strict"`, which holds a tenth of them out; where the
form was lost, once more without a gate. All are scored on the same labelled test sets, which no gate sees.
Raw data: benchmarks/results/safety_gate_levels.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import transformers
from datasets import Dataset

from recross_hf import RandomRetriever, ReCrossPipeline, load_starter_task, starter_tasks
from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table
from recross_hf.soft_em import exact_match

FASTER, RANDOM_FASTER = 30.0, 10.0
LEVELS = ("form", "strict")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=starter_tasks())
    parser.add_argument("--query_sets", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/safety_gate_levels.json"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()

    pipeline = ReCrossPipeline.from_pretrained()
    rate = pipeline.arguments().learning_rate
    cells: list[dict[str, Any]] = []
    for task in args.tasks:
        test = load_starter_task(task)[1]
        base = _score(pipeline, test)
        for query_set in range(args.query_sets):
            queries = load_starter_task(task, query_set)[0]
            random = RandomRetriever(pipeline.index.dataset, seed=100 * starter_tasks().index(task) + query_set)
            ways = {
                "dense": {},
                "random": {"retriever": random},
                f"dense, {FASTER:g} x rate": {"learning_rate": FASTER * rate},
                f"random, {RANDOM_FASTER:g} x rate": {"retriever": random, "learning_rate": RANDOM_FASTER * rate},
            }
            for name, way in ways.items():
                settings = {"rerank": False, "seed": query_set, "disable_tqdm": True} | way
                cells.append({"task": task, "query_set": query_set, "way": name, "base": base})
                for level in LEVELS:
                    cells[-1][level] = _adapted(pipeline, queries, test, settings | {"gate": level})
                form = cells[-1]["form"]
                cells[-1]["off"] = (
                    form if form["kept"] else _adapted(pipeline, queries, test, settings | {"gate": "off"})
                )
                print({name: cells[-1].get(name) for name in ("task", "way", "base", "off", *LEVELS)}, flush=True)
                write_json(args.output, cells)
    _print_table(cells)


def _adapted(pipeline: ReCrossPipeline, queries: Dataset, test: Dataset, settings: dict[str, Any]) -> dict[str, Any]:
    """Exact match of what an adaptation leaves, what its gate said, and the seconds of both."""
    with tempfile.TemporaryDirectory() as scratch:
        retriever = settings.get("retriever")
        settings = {name: value for name, value in settings.items() if name != "retriever"}
        adapter = pipeline.adapter(queries, pipeline.arguments(**settings, output_dir=scratch), retriever=retriever)
        start = time.perf_counter()
        adapter.train()
        seconds = time.perf_counter() - start
    return {
        "score": _score(pipeline.adapted(adapter), test),
        "kept": adapter.gate is None or adapter.gate.kept,
        "seconds": seconds,
        "gate_seconds": adapter.seconds.get("gate", 0.0),
        "gate": None if adapter.gate is None else asdict(adapter.gate),
    }


def _score(pipeline: ReCrossPipeline, test: Dataset) -> float:
    """Exact match in percent."""
    right = [exact_match(*pair) for pair in zip(pipeline(test["input"][:]), test["references"], strict=True)]
    return 100 * float(np.mean(right))


def _print_table(cells: list[dict[str, Any]]) -> None:
    rows = []
    for way in dict.fromkeys(cell["way"] for cell in cells):
        of_way = [cell for cell in cells if cell["way"] == way]
        change = [cell["off"]["score"] - cell["base"] for cell in of_way]
        means = [np.mean([cell["base"] for cell in of_way])]
        means += [np.mean([cell[level]["score"] for cell in of_way]) for level in ("off", *LEVELS)]
        refused = []
        for level in LEVELS:
            for group in ([by < 0 for by in change], [by > 0 for by in change]):
                verdicts = [cell[level]["kept"] for cell, belongs in zip(of_way, group, strict=True) if belongs]
                refused.append(f"{verdicts.count(False)} of {len(verdicts)}")
        share = np.median([cell["form"]["gate_seconds"] / cell["form"]["seconds"] for cell in of_way])
        rows.append([way, *[f"{mean:.1f}" for mean in means], *refused, f"{share:.0%}"])
    header = ["way", "base", "off", *LEVELS]
    header += [f"{level}: {group} refused" for level in LEVELS for group in ("harmful", "helpful")]
    print("\n" + format_table([*header, "time of the form gate"], rows))


if __name__ == "__main__":
    main()
