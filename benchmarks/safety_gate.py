"""What does the safety gate save, and what does it cost? Adaptations of the starter with and without it.

    python benchmarks/safety_gate.py
    python benchmarks/safety_gate.py --tasks bus_stop letter_stamp village_race lost_property --query_sets 1

Dense retrieval mostly helps there, examples drawn at random mostly harm, and a learning rate thirty times as large may do anything.
Each adaptation runs twice: on all retrieved examples, and with a tenth held out for the gate, which may put the base's weights back.
All are scored on the same labelled test sets, which the gate does not see. Raw data: benchmarks/results/safety_gate.json.
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

FASTER = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=starter_tasks())
    parser.add_argument("--query_sets", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/safety_gate.json"))
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
            }
            for name, way in ways.items():
                settings = {"rerank": False, "seed": query_set, "disable_tqdm": True} | way
                cells.append({"task": task, "query_set": query_set, "way": name, "base": base})
                cells[-1] |= _with_and_without(pipeline, queries, test, settings)
                print({key: value for key, value in cells[-1].items() if key != "gate"}, flush=True)
                write_json(args.output, cells)
    _print_table(cells)


def _with_and_without(
    pipeline: ReCrossPipeline, queries: Dataset, test: Dataset, settings: dict[str, Any]
) -> dict[str, Any]:
    retriever = settings.pop("retriever", None)
    found: dict[str, Any] = {}
    for name, safety_gate in (("ungated", False), ("gated", True)):
        with tempfile.TemporaryDirectory() as scratch:
            args = pipeline.arguments(**settings, safety_gate=safety_gate, output_dir=scratch)
            adapter = pipeline.adapter(queries, args, retriever=retriever)
            start = time.process_time()  # the machine may have other work
            adapter.train()
        found[f"{name}_seconds"] = time.process_time() - start
        found[name] = _score(pipeline.adapted(adapter), test)
    return found | {
        "kept": adapter.gate.kept,
        "gate_wall_seconds": adapter.seconds["gate"],
        "gate": asdict(adapter.gate),
    }


def _score(pipeline: ReCrossPipeline, test: Dataset) -> float:
    """Exact match in percent."""
    right = [exact_match(*pair) for pair in zip(pipeline(test["input"][:]), test["references"], strict=True)]
    return 100 * float(np.mean(right))


def _print_table(cells: list[dict[str, Any]]) -> None:
    rows = []
    for way in dict.fromkeys(cell["way"] for cell in cells):
        of_way = [cell for cell in cells if cell["way"] == way]
        harmful = [cell for cell in of_way if cell["ungated"] < cell["base"]]
        helpful = [cell for cell in of_way if cell["ungated"] > cell["base"]]
        means = [f"{np.mean([cell[name] for cell in of_way]):.1f}" for name in ("base", "ungated", "gated")]
        refused = [f"{sum(not cell['kept'] for cell in group)} of {len(group)}" for group in (harmful, helpful)]
        ratio = np.median([cell["gated_seconds"] / cell["ungated_seconds"] for cell in of_way])
        rows.append([way, *means, *refused, f"{ratio:.2f}"])
    header = ["way", "base", "always kept", "gated", "harmful refused", "helpful refused", "seconds, gated / not"]
    print("\n" + format_table(header, rows))


if __name__ == "__main__":
    main()
