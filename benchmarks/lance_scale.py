"""Lance beside FAISS at growing size: time and memory a vector of building and searching, recall at 64 and bytes on disk, in one run.

    python benchmarks/lance_scale.py --sizes 10000
    python benchmarks/lance_scale.py --sizes 10000 1000000 10000000 --work_dir /disk   # 10 million take 25 GB of room, and hours

Vectors are simulated, as in `index_scale.py`: drawn from a mixture of Gaussians, here of 64 clusters in 384 dimensions whose variance falls
off by a power law in directions that each cluster half shares with the others; or of one that is fitted on real vectors (`--vectors
real.npy`). Recall is that of 256 further draws against an exact search over all vectors in float32. Each build and each search has a process
of its own, so that its memory is its own; encoding (here: simulating) is timed apart. Results of other sizes in the output stay.

A Lance index is named by its kind, bits or bytes of the codes, and type of the vectors: "IVF_RQ,2,float16". Bytes on disk are those of the
vectors and of the index over them, without the texts. FAISS's IVF-PQ with refinement holds its vectors as float16, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from figures import Figure, report
from index_scale import (
    FIRST_QUERY,
    NUM_QUERIES,
    OWN_TASK,
    SEARCHED_AT_ONCE,
    K,
    SimulatedEncoder,
    exact_neighbours,
    fit_mixture,
    peak_memory,
    recall,
    results_before,
    seconds_of,
    with_row,
    write_examples,
)

from recross_hf import DenseRetriever, LanceIndex, LanceRetriever, UpstreamIndex, load_examples
from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table
from recross_hf.retrieval.lance.location import load_lance
from recross_hf.retrieval.lance.vector_index import IndexSettings, SearchDepth

LANCE = ("IVF_RQ,2,float16", "IVF_RQ,1,float16", "IVF_PQ,48,float16")
DEPTHS = (1, 2, 4, 8, 16)
"""Hits of the codes for each result, at which recall and time are measured."""


def made_up_mixture(path: Path, dimension: int, num_components: int = 64, seed: int = 0) -> None:
    """A mixture whose clusters share half of their covariance, about as hard as real vectors.

    Of 6,244 vectors in 384 dimensions, codes of product quantisation (PQ48) alone find 0.76 of the 64 nearest; among real vectors of
    all-MiniLM-L6-v2 it was 0.73.
    """
    rng = np.random.default_rng(seed)
    deviations = (np.arange(1, dimension + 1) ** -0.15).astype(np.float32)

    def directions() -> np.ndarray:
        return np.linalg.qr(rng.standard_normal((dimension, dimension)))[0].astype(np.float32)

    shared = directions()
    means = (rng.standard_normal((num_components, dimension)).astype(np.float32) * deviations) @ shared.T
    factors = np.stack([(shared + directions()) * deviations / np.sqrt(2) for _ in range(num_components)])
    weights = rng.dirichlet(np.full(num_components, 2.0))
    np.savez(path, weights=weights, means=means, factors=factors.astype(np.float32))


def settings_of(kind: str) -> tuple[IndexSettings, str]:
    """The settings of a Lance index by its name, and the type of its vectors."""
    name, size, dtype = kind.split(",")
    return IndexSettings(kind=name, code_size=int(size), fewest_indexed=1), dtype


def disk_of_lance(index: LanceIndex) -> dict[str, float]:
    """Bytes a vector: of the vectors, of the index over them, and of those that exclusions use."""
    dataset = load_lance().dataset(index.location.uri, version=index.version)
    (field,) = [field.id() for field in dataset.lance_schema.fields() if field.name() == "vector"]
    (vectors,) = [found.bytes_on_disk for found in dataset.stats.data_stats().fields if found.id == field]
    sizes = {"vector": 0, "task": 0, "id": 0}
    for described in dataset.describe_indices():
        for segment in described.segments:
            folder = Path(index.location.uri) / "_indices" / str(segment.uuid)
            sizes[described.field_names[0]] += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    found = {"vectors": vectors, "index": sizes["vector"], "exclusions": sizes["task"] + sizes["id"]}
    return {f"{name}_bytes": size / len(index) for name, size in found.items()}


def measure_build(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (kind,) = args.indexes
    examples, encoder = load_examples(folder / "examples.parquet"), SimulatedEncoder(folder / "mixture.npz")
    encoder.encode(["row 0"])
    encoder.seconds = 0.0
    start = time.perf_counter(), time.process_time()
    with peak_memory() as memory:
        if kind.startswith("IVF_"):
            settings, dtype = settings_of(kind)
            index = LanceIndex.build(
                examples, encoder, folder / "index", settings=settings, vector_dtype=dtype, min_recall=0.0
            )
        else:
            UpstreamIndex.build(
                examples, encoder, folder / "index", factory=kind, train_size=args.train_size, vector_dtype="float16"
            )
    seconds, cpu_seconds = time.perf_counter() - start[0], time.process_time() - start[1]
    if kind.startswith("IVF_"):
        disk = disk_of_lance(index) | {"own_recall": index.config["recall"]["value"]}
    else:
        disk = {"vectors_bytes": (folder / "index" / "index.faiss").stat().st_size / len(examples), "index_bytes": 0.0}
    return {
        **disk,
        "simulating_seconds": encoder.seconds,
        "build_seconds": seconds - encoder.seconds,
        "cpu_seconds": cpu_seconds,
        **memory,
    }


def depths_of(index: Any, queries: np.ndarray, exact: np.ndarray) -> dict[str, dict[str, float]]:
    """Recall and milliseconds a query by hits of the codes for each result."""
    found = {}
    for factor in DEPTHS if isinstance(index, LanceIndex) else ():
        index.depth = SearchDepth(index.depth.nprobes, factor)
        positions = index.search(queries, K).positions
        seconds = median(seconds_of(lambda: index.search(queries[:SEARCHED_AT_ONCE], K), 5))
        found[str(factor)] = {"recall": recall(exact, positions), "ms": 1000 * seconds / SEARCHED_AT_ONCE}
    return found


def measure_search(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    (kind,), (size,) = args.indexes, args.sizes
    encoder = SimulatedEncoder(folder / "mixture.npz")
    queries = encoder.encode([f"row {FIRST_QUERY + row}" for row in range(NUM_QUERIES)])
    exact = exact_neighbours(encoder, queries, size, folder / "exact.npy")
    kinds = (LanceIndex, LanceRetriever) if kind.startswith("IVF_") else (UpstreamIndex, DenseRetriever)
    start = time.perf_counter()
    with peak_memory() as memory:
        index = kinds[0].from_pretrained(folder / "index", encoder=encoder)
        opening = time.perf_counter() - start
        found = index.search(queries, K).positions
        once = queries[:SEARCHED_AT_ONCE]
        index.search(once, K)
    retriever = kinds[1](index, exclude_tasks=[OWN_TASK])
    per_query = 1000 / SEARCHED_AT_ONCE
    return {
        "recall": recall(exact, found),
        "opening_seconds": opening,
        "search_ms": per_query * median(seconds_of(lambda: index.search(once, K), args.repeats)),
        "excluding_half_ms": per_query * median(seconds_of(lambda: retriever.search(once, K), args.repeats)),
        "search_peak_mb": memory["peak_mb"],
        "search_resident_mb": memory["resident_peak_mb"],
        "by_refine_factor": depths_of(index, queries, exact),
    }


def in_a_process(step: str, size: int, kind: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--sizes", str(size), "--indexes", kind]
    command += ["--work_dir", str(folder), "--train_size", str(args.train_size), "--repeats", str(args.repeats)]
    environment = os.environ | {"HF_DATASETS_CACHE": str(folder / "cache"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(size: int, args: argparse.Namespace, mixture: Path) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(dir=args.work_dir) as name:
        folder = Path(name)
        shutil.copy(mixture, folder / "mixture.npz")
        write_examples(folder / "examples.parquet", size)
        for kind in args.indexes:
            build = in_a_process("build", size, kind, args, folder)
            yield {"size": size, "index": kind, **build, **in_a_process("search", size, kind, args, folder)}
            shutil.rmtree(folder / "index")


def figures_of(row: dict[str, Any], peer: dict[str, Any], dimension: int) -> list[Figure]:
    """A Lance index beside FAISS's with refinement of the same size: bytes beside those of float32, recall beside an exact search."""
    what = f"{row['size']:,} x {dimension}, Lance {row['index']}"
    beside = f"faiss, {peer['index']}"
    bytes_a_vector = row["vectors_bytes"] + row["index_bytes"]
    compared = [
        ("build", "us/vector", lambda row: 1e6 * row["build_seconds"] / row["size"]),
        ("peak memory of a build", "MB", lambda row: row["peak_mb"]),
        ("search", "ms/query", lambda row: row["search_ms"]),
        ("search, half excluded", "ms/query", lambda row: row["excluding_half_ms"]),
        ("memory of a search", "MB", lambda row: max(row["search_peak_mb"], 0.1)),
    ]
    found = [
        Figure(f"{name}, {what}", unit, of(row), of(peer), beside, of(row) / of(peer), at_most=True)
        for name, unit, of in compared
    ]
    found.append(Figure(f"recall at {K}, {what}", "", row["recall"], 1.0, "exact", row["recall"], goal=0.95))
    flat = 4.0 * dimension
    for name, size, goal in (("vectors and index", bytes_a_vector, 1 / 3), ("index alone", row["index_bytes"], None)):
        found.append(
            Figure(f"bytes a vector, {name}, {what}", "bytes", size, flat, "float32", size / flat, goal, at_most=True)
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, help="real vectors, .npy, to fit the mixture on; made up by default")
    parser.add_argument("--dimension", type=int, default=384, help="of made-up vectors")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument(
        "--indexes", nargs="+", help=f"Flat, IVF-PQ with refinement, and {', '.join(LANCE)} by default"
    )
    parser.add_argument("--train_size", type=int, default=40_000, help="of FAISS")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--work_dir", type=Path, help="room for the largest index and its shards; a temporary folder")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/lance_scale.json"))
    args = parser.parse_args()
    if args.step:
        print(json.dumps({"build": measure_build, "search": measure_search}[args.step](args, args.work_dir)))
        return
    vectors = None if args.vectors is None else np.load(args.vectors).astype(np.float32)
    dimension = args.dimension if vectors is None else vectors.shape[1]
    results = {"vectors": "made up" if args.vectors is None else args.vectors.name, "dimension": dimension, "rows": []}
    results = results_before(parser, args.output, results, ["vectors", "dimension"])
    chosen = args.indexes
    with tempfile.TemporaryDirectory() as name:
        mixture = Path(name) / "mixture.npz"
        made_up_mixture(mixture, dimension) if vectors is None else fit_mixture(vectors, mixture, 64)
        for size in args.sizes:
            # FAISS warns below 39 vectors a list.
            lists = min(1024, max(size // 256, 1))
            args.indexes = chosen or ["Flat", f"IVF{lists},PQ{dimension // 8}np,Refine(SQfp16)", *LANCE]
            for row in measure(size, args, mixture):
                results["rows"] = with_row(results["rows"], row, "index")
                write_json(args.output, results)
    columns = {
        "examples": lambda row: f"{row['size']:,}",
        "index": lambda row: row["index"],
        "us/vector": lambda row: f"{1e6 * row['build_seconds'] / row['size']:.0f}",
        "build MB": lambda row: f"{row['peak_mb']:.0f}",
        "bytes/vector": lambda row: f"{row['vectors_bytes'] + row['index_bytes']:.0f}",
        "recall@64": lambda row: f"{row['recall']:.3f}",
        "ms/query": lambda row: f"{row['search_ms']:.2f}",
        "half excluded": lambda row: f"{row['excluding_half_ms']:.2f}",
        "search MB": lambda row: f"{row['search_peak_mb']:.0f}",
    }
    print(format_table(list(columns), [[show(row) for show in columns.values()] for row in results["rows"]]))
    results.pop("figures", None)
    figures = []
    for row in results["rows"]:
        peers = [other for other in results["rows"] if other["size"] == row["size"] and "Refine" in other["index"]]
        if row["index"].startswith("IVF_") and peers:
            figures += figures_of(row, peers[0], dimension)
    report(figures, results, args.output)


if __name__ == "__main__":
    main()
