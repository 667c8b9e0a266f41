"""Time, memory, recall and search time of indexes of growing size, through `UpstreamIndex` and `DenseRetriever`.

    python benchmarks/index_scale.py --output starter.json # fitted on the starter's inputs and its encoder
    python benchmarks/index_scale.py --vectors real.npy --sizes 10000 100000 1000000
    python benchmarks/index_scale.py --vectors real.npy --sizes 10000000 --factories "IVF1024,PQ48np,Refine(SQfp16)"

Vectors are simulated, because encoding ten million texts takes days: drawn from a mixture of Gaussians that is fitted on vectors
of real inputs (`real.npy`, `[n, d]`, what an encoder gives for some thousand of them; the starter's own by default). How like the real ones they are is
measured first: recall on real vectors that the mixture was not fitted on, beside recall on as many simulated ones. Each build and
each search has a process of its own, so that its memory is its own; encoding (here: simulating) is timed apart. Results are
kept in benchmarks/results/index_scale.json, added to those of other sizes there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from zlib import crc32

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import Figure, report

from recross_hf import DenseRetriever, ReCrossPipeline, UpstreamIndex, load_examples
from recross_hf.core.files import read_json, write_json
from recross_hf.core.tables import format_table
from recross_hf.data.schema import EXAMPLE_FEATURES

K = 64
NUM_QUERIES, SEARCHED_AT_ONCE = 256, 16
FIRST_QUERY = 1 << 40
"""Rows from here on are queries: drawn as the others are, and in no index."""
BLOCK = 4096
OWN_TASK = "own"
"""A task that half of the examples are of, excluded in one of the searches."""


class SimulatedEncoder:
    """An encoder whose vector for "row n" is the n-th draw from a mixture of Gaussians, whatever else is encoded."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as mixture:
            self.weights, self.means, self.factors = mixture["weights"], mixture["means"], mixture["factors"]
        self.seconds = 0.0
        self._last: tuple[int, np.ndarray] = (-1, np.empty(0))

    def encode(self, texts: list[str]) -> np.ndarray:
        start = time.perf_counter()
        rows = np.array([int(text[4:]) if text.startswith("row ") else crc32(text.encode()) for text in texts])
        blocks, place = np.divmod(rows, BLOCK)
        vectors = np.empty((len(rows), self.means.shape[1]), dtype=np.float32)
        for block in np.unique(blocks):
            if block != self._last[0]:
                self._last = int(block), self._block(int(block))  # a shard is encoded a few texts at a time
            vectors[blocks == block] = self._last[1][place[blocks == block]]
        self.seconds += time.perf_counter() - start
        return vectors

    def _block(self, number: int) -> np.ndarray:
        rng = np.random.default_rng([number])
        components = rng.choice(len(self.weights), BLOCK, p=self.weights)
        vectors = rng.standard_normal((BLOCK, self.means.shape[1]), dtype=np.float32)
        for component in np.unique(components):
            rows = components == component
            vectors[rows] = self.means[component] + vectors[rows] @ self.factors[component].T
        return vectors


def fit_mixture(vectors: np.ndarray, path: Path, num_components: int) -> None:
    """Components are clusters; half of a component's covariance is its cluster's own, half that of all of them."""
    dimension = vectors.shape[1]
    clusters = faiss.Kmeans(dimension, num_components, niter=10, seed=0)
    clusters.train(vectors)
    labels = clusters.index.search(vectors, 1)[1][:, 0]
    residuals = vectors - clusters.centroids[labels]
    pooled = np.cov(residuals.T)
    counts = np.bincount(labels, minlength=num_components)
    factors = np.empty((num_components, dimension, dimension), dtype=np.float32)
    for component, count in enumerate(counts):
        own = np.cov(residuals[labels == component].T) if count > 1 else pooled
        floor = 1e-6 * pooled.trace() / dimension * np.eye(dimension)
        factors[component] = np.linalg.cholesky((own + pooled) / 2 + floor)
    np.savez(path, weights=counts / counts.sum(), means=clusters.centroids, factors=factors)


def recall(expected: np.ndarray, found: np.ndarray) -> float:
    """The share of the exact nearest neighbours among those that were found."""
    return float(np.mean([np.isin(e, f).mean() for e, f in zip(expected, found, strict=True)]))


def likeness(vectors: np.ndarray, folder: Path, num_components: int) -> dict[str, Any]:
    """Recall of product quantisation alone on real vectors and on simulated ones, of which as many are indexed."""
    fitted, real, queries = np.split(vectors, [len(vectors) // 2, len(vectors) - NUM_QUERIES])
    fit_mixture(fitted, folder / "half.npz", num_components)
    simulated = SimulatedEncoder(folder / "half.npz").encode([f"row {row}" for row in range(len(real) + NUM_QUERIES)])
    found = {}
    for name, (corpus, asked) in {
        "real": (real, queries),
        "simulated": (simulated[: len(real)], simulated[len(real) :]),
    }.items():
        index = faiss.index_factory(vectors.shape[1], f"PQ{vectors.shape[1] // 8}np")
        index.train(corpus)
        index.add(corpus)
        found[f"{name}_recall"] = recall(faiss.knn(asked, corpus, K)[1], index.search(asked, K)[1])
    return {"num_vectors": len(real), "num_components": num_components, **found}


def write_examples(path: Path, size: int) -> None:
    names = [name for name in EXAMPLE_FEATURES if name not in ("template", "choices")]
    schema = pa.schema([EXAMPLE_FEATURES.arrow_schema.field(name) for name in names])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, size, 100_000):
            rows = range(start, min(start + 100_000, size))
            tasks = [OWN_TASK if row < size // 2 else f"task {row % 20}" for row in rows]
            columns = {"id": map(str, rows), "task": tasks, "input": (f"row {row}" for row in rows)}
            columns["references"] = [["x"]] * len(rows)
            writer.write_table(pa.table({name: list(columns[name]) for name in names}, schema=schema))


@contextmanager
def peak_memory() -> Iterator[dict[str, float]]:
    """Megabytes above the start: of the process's own memory (not pages of mapped files), and of all that was resident."""

    def anonymous() -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1000

    def watch() -> None:
        while not done.wait(0.02):
            peaks.append(anonymous())

    start, peaks, done, found = anonymous(), [0.0], threading.Event(), {}
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield found
    finally:
        done.set()
        watcher.join()
        found["peak_mb"] = max(*peaks, anonymous()) - start
        found["resident_peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000 - resident


def measure_build(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (factory,) = args.factories
    examples = load_examples(folder / "examples.parquet")
    encoder = SimulatedEncoder(folder / "mixture.npz")
    encoder.encode(["row 0"])
    encoder.seconds = 0.0
    start = time.perf_counter(), time.process_time()
    with peak_memory() as memory:
        UpstreamIndex.build(
            examples,
            encoder,
            folder / "index",
            factory=factory,
            train_size=args.train_size,
            vector_dtype=args.vector_dtype,
        )
    seconds, cpu_seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    size = (folder / "index" / "index.faiss").stat().st_size
    return {
        "index_mb": size / 1e6,
        "bytes_per_vector": size / len(examples),
        "simulating_seconds": encoder.seconds,
        "build_seconds": seconds - encoder.seconds,
        "cpu_seconds": cpu_seconds,
        **memory,
    }


def exact_neighbours(encoder: SimulatedEncoder, queries: np.ndarray, size: int, path: Path) -> np.ndarray:
    """The positions of the K nearest of all vectors, drawn once more block by block."""
    if not path.is_file():
        best = faiss.ResultHeap(len(queries), K)
        for start in range(0, size, BLOCK):
            block = encoder.encode([f"row {row}" for row in range(start, min(start + BLOCK, size))])
            distances, positions = faiss.knn(queries, block, min(K, len(block)))
            best.add_result(distances, positions + start)
        best.finalize()
        np.save(path, best.I)
    return np.load(path)


def seconds_of(search: Callable[[], Any], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        search()
        found.append(time.perf_counter() - start)
    return found


def measure_search(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    encoder = SimulatedEncoder(folder / "mixture.npz")
    texts = [f"row {FIRST_QUERY + row}" for row in range(NUM_QUERIES)]
    queries = encoder.encode(texts)
    (size,) = args.sizes
    exact = exact_neighbours(encoder, queries, size, folder / "exact.npy")
    start = time.perf_counter()
    with peak_memory() as memory:
        index = UpstreamIndex.from_pretrained(folder / "index", encoder=encoder)
        opening = time.perf_counter() - start
        found = index.search(queries, K).positions
        once = queries[:SEARCHED_AT_ONCE]
        index.search(once, K)
    by_depth = {}
    if isinstance(index.faiss_index, faiss.IndexRefine):
        for hits_per_result in (1, 4, 8, 16, 32):
            params = faiss.IndexRefineSearchParameters(k_factor=hits_per_result)
            positions = index.search(queries, K, params=params).positions
            by_depth[f"recall_of_{hits_per_result}_hits_per_result"] = recall(exact, positions)
    raw = faiss.read_index(str(folder / "index" / "index.faiss"))
    pairs = [
        (seconds_of(lambda: raw.search(once, K), 1)[0], seconds_of(lambda: index.search(once, K), 1)[0])
        for _ in range(args.repeats)
    ]
    retriever = DenseRetriever(index, exclude_tasks=[OWN_TASK])
    excluding = seconds_of(lambda: retriever.search(once, K), args.repeats)
    per_query = 1000 / SEARCHED_AT_ONCE
    return {
        "recall": recall(exact, found),
        "opening_seconds": opening,
        "search_ms": per_query * median(mapped for _, mapped in pairs),
        "raw_search_ms": per_query * median(seconds for seconds, _ in pairs),
        "ratio_to_raw": median(mapped / seconds for seconds, mapped in pairs),
        "excluding_half_ms": per_query * median(excluding),
        "search_peak_mb": memory["peak_mb"],
        **by_depth,
    }


def in_a_process(step: str, size: int, factory: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--sizes", str(size), "--factories", factory]
    command += ["--work_dir", str(folder), "--train_size", str(args.train_size), "--repeats", str(args.repeats)]
    command += ["--vector_dtype", args.vector_dtype]
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: int, args: argparse.Namespace, mixture: Path) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=args.work_dir) as name:
        folder = Path(name)
        shutil.copy(mixture, folder / "mixture.npz")
        write_examples(folder / "examples.parquet", size)
        for factory in args.factories:
            build = in_a_process("build", size, factory, args, folder)
            search = in_a_process("search", size, factory, args, folder)
            settings = {"size": size, "factory": factory, "vector_dtype": args.vector_dtype}
            yield settings | {"train_size": args.train_size, **build, **search}
            shutil.rmtree(folder / "index")


def starter_vectors() -> np.ndarray:
    """The starter's upstream inputs, as its index has them."""
    index = ReCrossPipeline.from_pretrained().index.faiss_index
    return index.reconstruct_n(0, index.ntotal)


def figures_of(row: dict[str, Any]) -> list[Figure]:
    """Search beside FAISS in memory; of a build, memory beside its limit and, where vectors are coded, bytes beside those of Flat.

    The goal of a twentieth is for product quantisation; with `Refine`, whole vectors lie on disk beside it.
    """
    dimension = row["dimension"]
    what = f"{row['size']:,} x {dimension}, {row['factory']}"
    limit = row["index_mb"] + 500
    found = [
        Figure(
            what=f"search, {what}",
            unit="ms/query",
            ours=row["search_ms"],
            peer=row["raw_search_ms"],
            peer_name="faiss, in memory",
            ratio=row["ratio_to_raw"],
            goal=1.1,
            at_most=True,
        ),
        Figure(
            what=f"peak memory of a build, {what}",
            unit="MB",
            ours=row["peak_mb"],
            peer=limit,
            peer_name="the index + 500 MB",
            ratio=row["peak_mb"] / limit,
            goal=1.0,
            at_most=True,
        ),
    ]
    if row["factory"] != "Flat":
        flat = 4.0 * dimension
        found.append(
            Figure(
                what=f"bytes a vector on disk, {what}, recall at {K} {row['recall']:.2f}",
                unit="bytes",
                ours=row["bytes_per_vector"],
                peer=flat,
                peer_name="Flat",
                ratio=row["bytes_per_vector"] / flat,
                goal=0.05 if "PQ" in row["factory"] and "Refine" not in row["factory"] else None,
                at_most=True,
            )
        )
    return found


def results_before(
    parser: argparse.ArgumentParser, path: Path, start: dict[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """The results that an earlier run wrote, of the same vectors as these names tell; `start` where there are none."""
    if not path.is_file():
        return start
    before = read_json(path)
    if any(before[name] != start[name] for name in names):
        parser.error(f"{path} has results of other vectors ({before['vectors']}): give another --output")
    return before


def with_row(rows: Sequence[dict[str, Any]], row: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The rows with a new one in place of that of the same size and kind of index, in order."""
    kept = [old for old in rows if (old["size"], old[kind]) != (row["size"], row[kind])]
    return sorted([*kept, row], key=lambda row: (row["size"], row[kind]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="real vectors, .npy; those of the starter's inputs by default")
    parser.add_argument("--num_components", type=int, default=64)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--factories",
        nargs="+",
        help="Flat, SQ8 and IVF1024,PQ*np,Refine(SQfp16) with a byte for 8 dimensions by default",
    )
    parser.add_argument("--vector_dtype", default="float16")
    parser.add_argument("--train_size", type=int, default=40_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--work_dir", type=Path, help="room for the largest index and its shards; a temporary folder")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/index_scale.json"))
    args = parser.parse_args()

    if args.step:
        print(json.dumps({"build": measure_build, "search": measure_search}[args.step](args, args.work_dir)))
        return
    vectors = starter_vectors() if args.vectors is None else np.load(args.vectors).astype(np.float32)
    dimension = vectors.shape[1]
    results = {"vectors": "starter" if args.vectors is None else args.vectors.name, "rows": []}
    results = results_before(parser, args.output, results, ["vectors"])
    args.factories = args.factories or ["Flat", "SQ8", f"IVF1024,PQ{dimension // 8}np,Refine(SQfp16)"]
    with tempfile.TemporaryDirectory() as name:
        if "likeness" not in results:
            results["likeness"] = likeness(vectors, Path(name), args.num_components)
        mixture = Path(name) / "mixture.npz"
        fit_mixture(vectors, mixture, args.num_components)
        for size in args.sizes:
            for row in measure(size, args, mixture):
                row["dimension"] = dimension
                results["rows"] = with_row(results["rows"], row, "factory")
                write_json(args.output, results)
    print(json.dumps(results["likeness"]))
    columns = {
        "examples": lambda row: f"{row['size']:,}",
        "index": lambda row: row["factory"],
        "us/vector": lambda row: f"{1e6 * row['build_seconds'] / row['size']:.0f}",
        "index MB": lambda row: f"{row['index_mb']:.0f}",
        "recall@64": lambda row: f"{row['recall']:.3f}",
        "half excluded, ms": lambda row: f"{row['excluding_half_ms']:.2f}",
    }
    print(format_table(list(columns), [[show(row) for show in columns.values()] for row in results["rows"]]))
    results.pop("figures", None)
    report([figure for row in results["rows"] for figure in figures_of(row)], results, args.output)


if __name__ == "__main__":
    main()
