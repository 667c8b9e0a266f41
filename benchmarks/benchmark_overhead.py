"""What a benchmark costs beside its adaptations and predictions: its wall time over the sum of its cells' seconds.

    python benchmarks/benchmark_overhead.py

One process, the starter, from reading the tasks to the saved results; a second run, which finds all cells finished, is timed, too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import transformers
from figures import Figure, report

from recross_hf import ReCrossPipeline, evaluate_methods, paper_methods, starter_target_task, starter_tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["none", "random", "bm25", "dense_by_task"])
    parser.add_argument("--tasks", nargs="+", default=starter_tasks())
    parser.add_argument("--num_test", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/benchmark_overhead.json"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    pipeline = ReCrossPipeline.from_pretrained()
    # What is loaded when it is first used is the pipeline's time and no part of the comparison.
    pipeline(["Is it warm?"])
    print(f"{len(pipeline.index)} upstream examples", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        wall = []
        for _ in range(2):
            start = time.perf_counter()
            tasks = [starter_target_task(name).limited(args.num_test, 1) for name in args.tasks]
            results = evaluate_methods(pipeline, tasks, paper_methods(pipeline, args.methods), folder)
            results.save(folder)
            wall.append(time.perf_counter() - start)
    cells = [cell for cell in results.cells if cell.kind != "floor"]
    work = sum(sum(cell.seconds.values()) for cell in cells)
    found = {"cells": len(cells), "seconds": wall[0], "work": work, "overhead": wall[0] / work - 1, "again": wall[1]}
    print(
        f"{len(cells)} cells: {wall[0]:.1f} s, of which {work:.1f} s work: {100 * found['overhead']:.1f} % more; again {wall[1]:.1f} s"
    )
    figure = Figure(
        what=f"a benchmark of {len(cells)} cells",
        unit="s",
        ours=wall[0],
        peer=work,
        peer_name="its adaptations and predictions",
        ratio=wall[0] / work,
        goal=1.05,
        at_most=True,
    )
    report([figure], found, args.output)


if __name__ == "__main__":
    main()
