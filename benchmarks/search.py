"""Seconds of a search over an index: `UpstreamIndex.search` and `DenseRetriever` against raw FAISS.

    python benchmarks/search.py --pipeline minilm0-pipeline --queries piqa/query-0.parquet --columns id=example_id

All three search the same vectors for the same 16 queries, in turn; medians and the ratio pair by pair are printed, and all
timings are kept in benchmarks/results/search.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import median

import faiss
import numpy as np

from recross_hf import DenseRetriever, ReCrossPipeline, load_queries
from recross_hf.files import write_json
from recross_hf.report import format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", type=Path, required=True)
    parser.add_argument("--queries", required=True)
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--num_queries", type=int, default=16)
    parser.add_argument("--num_retrieved", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/search.json"))
    args = parser.parse_args()

    index = ReCrossPipeline.from_pretrained(args.pipeline).index
    raw = faiss.read_index(str(args.pipeline / "index" / "index.faiss"))
    queries = load_queries(args.queries, columns=dict(pair.split("=", 1) for pair in args.columns))
    texts = queries["input"][: args.num_queries]
    vectors = index.encoder.encode(texts)
    k = -(-args.num_retrieved // len(texts))
    contenders = {
        "faiss.Index.search": lambda: raw.search(vectors, k),
        "UpstreamIndex.search": lambda: index.search(vectors, k),
        "DenseRetriever.retrieve, encoding included": lambda: DenseRetriever(index).retrieve(
            texts, args.num_retrieved
        ),
    }
    assert np.array_equal(raw.search(vectors, k)[1], index.search(vectors, k).positions)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.repeats):
        for name, search in contenders.items():
            start = time.perf_counter()
            search()
            seconds[name].append(time.perf_counter() - start)
    reference = seconds["faiss.Index.search"]
    ratios = {name: median(b / a for a, b in zip(reference, times, strict=True)) for name, times in seconds.items()}
    rows = [[name, f"{1000 * median(times):.2f}", f"{ratios[name]:.2f}"] for name, times in seconds.items()]
    header = f"{len(texts)} queries, top {k} of {len(index)} x {raw.d} ({faiss.omp_get_max_threads()} threads)"
    print(format_table([header, "ms", "ratio"], rows))
    write_json(
        args.output,
        {"num_vectors": len(index), "dimension": raw.d, "k": k, "seconds": seconds, "median_ratio": ratios},
    )


if __name__ == "__main__":
    main()
