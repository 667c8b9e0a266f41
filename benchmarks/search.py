"""Seconds of a search over an index: `UpstreamIndex.search` and `DenseRetriever` against raw FAISS.

    python benchmarks/search.py
    python benchmarks/search.py --pipeline minilm0-pipeline --queries piqa/query-0.parquet --columns id=example_id

All three search the same vectors for the same 16 queries, in turn; medians and the ratio pair by pair are printed, and all
timings are kept in benchmarks/results/search.json. Without a pipeline, the vectors are drawn at random: 118,000 of 384 dimensions in an
exact index, for which what is in them does not matter.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from datasets import Dataset
from figures import Figure, report

from recross_hf import DenseRetriever, ReCrossPipeline, UpstreamIndex, load_queries

RAW, OURS, WHOLE = "faiss.Index.search", "UpstreamIndex.search", "DenseRetriever.retrieve, encoding included"


class MadeUpVectors:
    """An encoder whose vectors are drawn at random, the same for the same texts."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.random.default_rng([len(texts), len(texts[0])]).normal(size=(len(texts), 384)).astype(np.float32)


def made_up_index(num_vectors: int, folder: Path) -> UpstreamIndex:
    columns = {
        "id": [f"made-up/{number}" for number in range(num_vectors)],
        "task": [f"task{number % 34}" for number in range(num_vectors)],
        "input": [f"input {number}" for number in range(num_vectors)],
        "references": [["yes"]] * num_vectors,
    }
    return UpstreamIndex.build(Dataset.from_dict(columns), MadeUpVectors(), folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path)
    parser.add_argument("--queries")
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--num_vectors", type=int, default=118_000, help="of the made-up index")
    parser.add_argument("--num_queries", type=int, default=16)
    parser.add_argument("--num_retrieved", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/search.json"))
    args = parser.parse_args()
    if (args.pipeline is None) != (args.queries is None):
        parser.error("--pipeline and --queries go together")

    with tempfile.TemporaryDirectory() as folder:
        if args.pipeline is None:
            index = made_up_index(args.num_vectors, Path(folder))
            raw = faiss.read_index(str(Path(folder) / "index.faiss"))
            texts = [f"query {number}" for number in range(args.num_queries)]
        else:
            index = ReCrossPipeline.from_pretrained(args.pipeline).index
            raw = faiss.read_index(str(args.pipeline / "index" / "index.faiss"))
            queries = load_queries(args.queries, columns=dict(pair.split("=", 1) for pair in args.columns))
            texts = queries["input"][: args.num_queries]
        vectors = index.encoder.encode(texts)
        k = -(-args.num_retrieved // len(texts))
        contenders = {
            RAW: lambda: raw.search(vectors, k),
            OURS: lambda: index.search(vectors, k),
            WHOLE: lambda: DenseRetriever(index).retrieve(texts, args.num_retrieved),
        }
        assert np.array_equal(raw.search(vectors, k)[1], index.search(vectors, k).positions)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(args.repeats):
            for name, search in contenders.items():
                start = time.perf_counter()
                search()
                seconds[name].append(time.perf_counter() - start)
    ratios = {name: median(b / a for a, b in zip(seconds[RAW], times, strict=True)) for name, times in seconds.items()}
    figures = [
        Figure(
            what=f"{name}, {len(texts)} queries, top {k} of {len(index):,} x {raw.d}",
            unit="ms",
            ours=1000 * median(seconds[name]),
            peer=1000 * median(seconds[RAW]),
            peer_name=RAW,
            ratio=ratios[name],
            goal=goal,
            at_most=True,
        )
        for name, goal in ((OURS, 1.1), (WHOLE, None))
    ]
    report(
        figures,
        {
            "num_vectors": len(index),
            "dimension": raw.d,
            "k": k,
            "threads": faiss.omp_get_max_threads(),
            "seconds": seconds,
        },
        args.output,
    )


if __name__ == "__main__":
    main()
