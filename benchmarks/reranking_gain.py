"""Does retrieval pay, and its reranker? No retrieval, random, dense, dense + reranker at equal |R|, on real tasks and query sets.

    python benchmarks/reranking_gain.py --pipeline minilm0-pipeline --tasks 'target/*' --output benchmarks/results/reranking

A task is a folder with `test.parquet` (or `dev.parquet`) and `query-0.parquet` ... (or `train.parquet`, from which query sets are
drawn: an upstream task that the model and the index have never seen). Each cell (task, query set, method) is a file: a killed
run continues, and several processes share the cells (`--part 0/2` and `--part 1/2`). All methods are scored on the same test rows,
one for each source example; differences are paired, with bootstrap intervals over query sets and rows. `NAME_by_task` is the
method NAME that selects whole tasks among mu x |R| (`select_by="task"`); the reranker scores once for both, so that the second's seconds
are without it.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from datasets import Dataset

from recross_hf import (
    CrossEncoderReranker,
    DenseRetriever,
    RandomRetriever,
    ReCrossPipeline,
    load_examples,
    load_queries,
)
from recross_hf.adaptation.results import task_shares
from recross_hf.core.files import matching, read_json, read_parquet, write_json
from recross_hf.core.statistics import paired_interval
from recross_hf.core.tables import format_table
from recross_hf.reranking.reranker import RememberingReranker
from recross_hf.soft_em import exact_match, soft_match

METRICS = {"exact_match": exact_match, "soft_em": soft_match}
COLUMNS = {"references": "outputs", "id": "example_id"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", required=True)
    parser.add_argument("--tasks", nargs="+", required=True, help="folders, or patterns of folders")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the cells")
    parser.add_argument(
        "--reranker", action="append", default=[], metavar="NAME=FOLDER", help="method and its reranker"
    )
    parser.add_argument(
        "--methods", nargs="+", default=["base", "random", "dense", "dense_by_task"], help="besides the rerankers"
    )
    parser.add_argument("--query_sets", type=int, default=5)
    parser.add_argument("--num_queries", type=int, default=16)
    parser.add_argument("--num_test", type=int, default=200)
    parser.add_argument("--num_retrieved", type=int, default=256)
    parser.add_argument("--upsampling_ratio", type=float, default=2.0)
    parser.add_argument("--learning_rate", type=float, default=3e-5)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument(
        "--freeze", default=r"embeddings|encoder\.encoder\.layer\.[012]\.", help="parameters left alone"
    )
    parser.add_argument("--part", default="0/1")
    parser.add_argument("--summary", action="store_true", help="only read the cells and print the tables")
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    rerankers = dict(item.split("=", 1) for item in args.reranker)
    folders = [folder for pattern in args.tasks for folder in matching(pattern)]
    if not args.summary:
        run_cells(args, folders, rerankers)
    finished = {path.name.split(".")[-2] for path in args.output.glob("*.json")}
    methods = [method for method in methods_of(args, rerankers) if method in finished]
    print_summary(args.output, [folder.name for folder in folders], methods)


def methods_of(args: argparse.Namespace, rerankers: dict[str, str]) -> list[str]:
    return [*args.methods, *(name + way for name in rerankers for way in ("", "_by_task"))]


def run_cells(args: argparse.Namespace, folders: list[Path], rerankers: dict[str, str]) -> None:
    pipeline = ReCrossPipeline.from_pretrained(args.pipeline)
    for name, parameter in pipeline.upstream_model.named_parameters():
        parameter.requires_grad_(not re.search(args.freeze, name))
    loaded = {
        name: RememberingReranker(CrossEncoderReranker.from_pretrained(folder, autocast_dtype=torch.bfloat16))
        for name, folder in rerankers.items()
    }
    part, parts = map(int, args.part.split("/"))
    # Query set by query set, so that a run that is cut short has all tasks.
    cells = [
        (folder, number, method)
        for number in range(args.query_sets)
        for folder in folders
        for method in methods_of(args, rerankers)
        if method != "base" or number == 0
    ]
    # A task's methods stay in one process, for two of them share a reranker's scores.
    turns = {key: turn for turn, key in enumerate(dict.fromkeys((folder, number) for folder, number, _ in cells))}
    for folder, number, method in cells:
        way = method.removesuffix("_by_task")
        reranker = loaded.get(way)
        path = args.output / f"{folder.name}.{number}.{method}.json"
        settings = {name: getattr(args, name) for name in _SETTINGS} | {"pipeline": Path(args.pipeline).name}
        settings["reranker"] = reranker.reranker.identity() if reranker is not None else None
        if path.is_file() and read_json(path)["settings"] != settings:
            raise SystemExit(f"{path} was made with other settings: choose another --output, or delete it.")
        if path.is_file() or turns[folder, number] % parts != part:
            continue
        start = time.perf_counter()
        test, queries = read_task(folder, number, args)
        if method == "base":
            predictor, retrieved, seconds = pipeline, None, {}
        else:
            excluded = [folder.name] if folder.name in set(pipeline.index.dataset.unique("task")) else []
            if method == "random":
                # Another draw for each task: the intervals take tasks as independent.
                seed = 1000 * number + zlib.crc32(folder.name.encode()) % 1000
                retriever = RandomRetriever(pipeline.index.dataset, seed=seed, exclude_tasks=excluded)
            else:
                retriever = DenseRetriever(pipeline.index, exclude_tasks=excluded)
            arguments = pipeline.arguments(
                learning_rate=args.learning_rate,
                num_train_epochs=args.epochs,
                per_device_train_batch_size=args.batch_size,
                num_retrieved=args.num_retrieved,
                upsampling_ratio=args.upsampling_ratio,
                select_by="example" if method == way else "task",
                seed=number,
                use_cpu=True,
                bf16=True,
                disable_tqdm=True,
            )
            with tempfile.TemporaryDirectory() as arguments.output_dir:
                adapter = pipeline.adapter(
                    queries, arguments, retriever=retriever, reranker=reranker, rerank=reranker is not None
                )
                adapter.train()
            predictor, retrieved, seconds = pipeline.adapted(adapter), adapter.retrieved, adapter.seconds
        predictions = predictor(test["input"][:])
        right = {
            name: "".join(str(int(matches(*pair))) for pair in zip(predictions, test["references"], strict=True))
            for name, matches in METRICS.items()
        }
        cell = {
            "task": folder.name,
            "query_set": number,
            "method": method,
            **right,
            "retrieved_tasks": task_shares(retrieved) if retrieved is not None else None,
            "seconds": {**seconds, "all": time.perf_counter() - start},
            "num_test": len(test),
            "settings": settings,
        }
        write_json(path, cell)
        share = right["exact_match"].count("1") / len(predictions)
        print(f"{path.name}: EM {100 * share:.1f}, {cell['seconds']['all']:.0f} s", flush=True)


_SETTINGS = [
    "num_queries",
    "num_test",
    "num_retrieved",
    "upsampling_ratio",
    "learning_rate",
    "epochs",
    "batch_size",
    "freeze",
    "query_sets",
]


def read_task(folder: Path, number: int, args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """Test rows and one query set of a task."""
    is_target = (folder / "test.parquet").is_file()
    test = load_examples(str(folder / ("test.parquet" if is_target else "dev.parquet")), columns=COLUMNS)
    if is_target:
        path = str(folder / f"query-{number}.parquet")
        queries = load_queries(path, columns={"id": "example_id"}, task=folder.name)
        queries = queries.select(range(min(args.num_queries, len(queries))))
        # In the BIG-bench tasks, the queries come from the test pool.
        seen = {row for other in range(args.query_sets) for row in _ids(folder / f"query-{other}.parquet")}
        test = test.select([row for row, id_ in enumerate(test["id"][:]) if id_ not in seen])
    else:
        train = load_examples(str(folder / "train.parquet"), columns=COLUMNS)
        rows = np.random.default_rng(0).permutation(len(train))[number * args.num_queries :][: args.num_queries]
        queries = load_queries(train.select(rows).remove_columns("references"))
    # One row for each source example: rows of one source are not independent.
    order = np.random.default_rng(1).permutation(len(test))
    sources = [test[int(row)]["id"].rsplit("#", 1)[-1] for row in order]
    first = [order[place] for place, source in enumerate(sources) if source not in sources[:place]]
    return test.select(first[: args.num_test]), queries


def _ids(path: Path) -> list[str]:
    return read_parquet(path)["example_id"][:] if path.is_file() else []


def print_summary(folder: Path, tasks: list[str], methods: list[str]) -> None:
    cells = [read_json(path) for path in sorted(folder.glob("*.json"))]
    by_key = {(cell["task"], cell["method"], cell["query_set"]): cell for cell in cells}
    summary = {}
    for metric in METRICS:
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for task in tasks:
            # Query sets that every method has finished.
            complete = [
                number
                for number in range(99)
                if all(method == "base" or (task, method, number) in by_key for method in methods)
            ]
            if not complete or (task, "base", 0) not in by_key:
                continue
            arrays[task] = {
                method: 100.0
                * np.array(
                    [
                        [int(bit) for bit in by_key[task, method, 0 if method == "base" else number][metric]]
                        for number in complete
                    ]
                )
                for method in methods
            }
        if not arrays:
            print("No task has a query set that every method has finished.")
            return
        rows = [
            [task, *(f"{found[method].mean():.1f}" for method in methods), str(len(found[methods[0]]))]
            for task, found in arrays.items()
        ]
        rows.append(["mean", *(f"{np.mean([found[m].mean() for found in arrays.values()]):.1f}" for m in methods), ""])
        print(f"\n{metric}\n" + format_table(["task", *methods, "query sets"], rows))
        for one, other in [(a, b) for place, a in enumerate(methods) for b in methods[:place]]:
            interval = paired_interval([found[one] - found[other] for found in arrays.values()])
            summary[f"{metric}: {one} - {other}"] = interval._asdict()
            print(f"{one} - {other}: {interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]")
    write_json(folder.with_suffix(".summary.json"), summary)


if __name__ == "__main__":
    main()
