"""Does adaptation pay on the starter? Base, random, dense and reranked retrieval on all unseen tasks and query sets.

Dense and reranked retrieval select single examples, as the paper does, or whole tasks (`select_by="task"`). The reranker scores once
for both.

    python benchmarks/starter_gain.py

All models are scored on the same test sets; differences are paired, with bootstrap intervals over query sets and
examples. What every model got right is kept in benchmarks/results/starter_gain.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from tqdm.auto import tqdm

from recross_hf import RandomRetriever, ReCrossPipeline, load_starter_task, starter_tasks
from recross_hf.adaptation.results import task_shares
from recross_hf.core.files import read_json, write_json
from recross_hf.core.statistics import paired_interval
from recross_hf.core.tables import format_table
from recross_hf.data.starter import NUM_QUERY_SETS
from recross_hf.reranking.reranker import RememberingReranker
from recross_hf.soft_em import exact_match, soft_match

WAYS: dict[str, dict[str, Any]] = {
    "random": {},
    "dense": {"rerank": False, "select_by": "example"},
    "dense by task": {"rerank": False, "select_by": "task", "upsampling_ratio": 2.0},
    "reranked": {"rerank": True, "select_by": "example", "upsampling_ratio": 2.0},
    "reranked by task": {"rerank": True, "select_by": "task", "upsampling_ratio": 2.0},
}
MODELS = ("base", *WAYS)
PAIRS = (
    ("dense", "base"),
    ("dense", "random"),
    ("dense by task", "dense"),
    ("reranked", "dense"),
    ("reranked by task", "dense"),
    ("reranked by task", "dense by task"),
)
METRICS = {"exact_match": exact_match, "soft_em": soft_match}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="*", default=starter_tasks())
    parser.add_argument("--query_sets", type=int, default=NUM_QUERY_SETS)
    parser.add_argument("--learning_rate", type=float, help="another one than the pipeline's")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=list(WAYS),
        default=list(WAYS),
        help="adapt these; the others are in --output already",
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/starter_gain.json"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()

    pipeline = ReCrossPipeline.from_pretrained()
    pipeline.reranker = RememberingReranker(pipeline.reranker)
    overrides = {"learning_rate": args.learning_rate} if args.learning_rate else {}
    correct: dict[str, dict[str, dict[str, list[list[int]]]]] = {}
    retrieved: dict[str, dict[str, float]] = {}
    seconds = []
    kept = read_json(args.output) if set(args.only) != set(WAYS) else None
    missing = set(WAYS) - set(args.only) - set(kept["correct"][args.tasks[0]]["exact_match"] if kept else ())
    if missing:
        raise SystemExit(f"{args.output} has no {', '.join(sorted(missing))}: leave out --only.")
    for task in args.tasks:
        test = load_starter_task(task)[1]
        base = _correct(pipeline, test)
        correct[task] = {metric: {"base": [base[metric]] * args.query_sets} for metric in METRICS}
        for query_set in tqdm(range(args.query_sets), desc=task):
            queries = load_starter_task(task, query_set)[0]
            seed = 100 * args.tasks.index(task) + query_set  # another draw for each task
            random = RandomRetriever(pipeline.index.dataset, seed=seed)
            for name, way in WAYS.items():
                if name not in args.only:
                    for metric in METRICS:
                        bits = kept["correct"][task][metric][name][query_set]
                        correct[task][metric].setdefault(name, []).append([int(bit) for bit in bits])
                    retrieved[task] = kept["retrieved"][task]
                    continue
                start = time.perf_counter()
                way = way | ({"retriever": random} if name == "random" else {})
                adapted = pipeline.adapt(queries, **way, gate="off", seed=query_set, disable_tqdm=True, **overrides)
                seconds.append(time.perf_counter() - start)
                for metric, right in _correct(adapted, test).items():
                    correct[task][metric].setdefault(name, []).append(right)
                if name == "dense" and query_set == 0:
                    retrieved[task] = dict(list(task_shares(adapted.retrieved).items())[:3])

    summary = {}
    for metric in METRICS:
        arrays = {
            task: {name: 100 * np.array(rows) for name, rows in correct[task][metric].items()} for task in correct
        }
        rows = []
        for task, by_name in arrays.items():
            top = ", ".join(f"{name} {100 * share:.0f} %" for name, share in retrieved[task].items())
            means = [f"{by_name[name].mean():.1f}" for name in MODELS]
            rows.append([task, *means, f"{by_name['dense'].mean(axis=1).std():.1f}", top])
        means = [f"{np.mean([by_name[name].mean() for by_name in arrays.values()]):.1f}" for name in MODELS]
        rows.append(["mean", *means, "", ""])
        print(
            f"\n{metric}\n" + format_table(["task", *MODELS, "sd of dense over sets", "retrieved (first set)"], rows)
        )
        for one, other in PAIRS:
            interval = paired_interval([by_name[one] - by_name[other] for by_name in arrays.values()])
            summary[f"{metric}: {one} - {other}"] = interval._asdict()
            print(
                f"{one} - {other}: {interval.mean:+.1f} points, 95 % interval [{interval.low:+.1f}, {interval.high:+.1f}]"
            )
    print(f"\nAn adaptation took {np.median(seconds):.1f} s (median of {len(seconds)}).")
    # Bits as text keep the file small: one string of 0 and 1 a model and query set.
    bits = {
        task: {
            metric: {name: ["".join(map(str, row)) for row in rows] for name, rows in by_name.items()}
            for metric, by_name in metrics.items()
        }
        for task, metrics in correct.items()
    }
    write_json(args.output, {"differences": summary, "retrieved": retrieved, "seconds": seconds, "correct": bits})


def _correct(pipeline: ReCrossPipeline, test) -> dict[str, list[int]]:
    predictions = pipeline(test["input"][:])
    return {
        name: [int(matches(*pair)) for pair in zip(predictions, test["references"], strict=True)]
        for name, matches in METRICS.items()
    }


if __name__ == "__main__":
    main()
