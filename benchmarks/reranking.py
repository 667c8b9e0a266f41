"""Reranking: pairs a second against `sentence_transformers.CrossEncoder.predict` with the same weights.

    python benchmarks/reranking.py --reranker reranker --pipeline minilm0-pipeline

16 queries and mu x |R| = 1,024 retrieved candidates of a pipeline's own data, by default of the starter. Candidates that several
queries bring are scored once; how much of the ratio that explains is shown by a third row, the same pairs without repetition.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
import transformers
from sentence_transformers import CrossEncoder

from recross_hf import CrossEncoderReranker, DenseRetriever, ReCrossPipeline, load_starter_task, starter_tasks
from recross_hf.files import write_json
from recross_hf.ranking_metrics import spearman
from recross_hf.report import format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="a pipeline folder; the starter by default")
    parser.add_argument("--reranker", help="the folder of a reranker; the pipeline's by default")
    parser.add_argument("--num_queries", type=int, default=16)
    parser.add_argument("--num_candidates", type=int, default=1024)
    parser.add_argument("--batch_size", type=int, default=32, help="of CrossEncoder.predict; 32 is its default")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reranking.json"))
    args = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()

    pipeline = ReCrossPipeline.from_pretrained(args.pipeline, verify_checksums=False)
    if args.reranker:
        folder = Path(args.reranker)
    else:
        if pipeline.reranker is None:
            raise SystemExit("This pipeline has no reranker: name one with --reranker.")
        folder = args.output.with_suffix(".reranker")
        pipeline.reranker.save_pretrained(folder)
    reranker, cross_encoder = (
        CrossEncoderReranker.from_pretrained(folder, autocast_dtype=torch.float32),
        CrossEncoder(str(folder)),
    )
    if args.pipeline:
        dataset = pipeline.index.dataset
        rows = np.random.default_rng(0).choice(len(dataset), 1)
        task = dataset[int(rows[0])]["task"]
        same = [row for row, other in enumerate(dataset.with_format(None)["task"][:]) if other == task]
        queries = [dataset[row]["input"] for row in same[: args.num_queries]]
        retriever = DenseRetriever(pipeline.index, exclude_tasks=[task])
    else:
        queries = load_starter_task(starter_tasks()[0])[0]["input"][: args.num_queries]
        retriever = DenseRetriever(pipeline.index)
    candidates = retriever.retrieve(queries, args.num_candidates)["input"][:]
    distinct = list(dict.fromkeys(candidates))

    def ours(texts: list[str]) -> np.ndarray:
        return reranker.rank(queries, texts)

    def theirs(texts: list[str]) -> np.ndarray:
        pairs = [(query, text) for query in queries for text in texts]
        scores = cross_encoder.predict(pairs, batch_size=args.batch_size, show_progress_bar=False)
        return np.asarray(scores).reshape(len(queries), len(texts)).mean(axis=0)

    seconds: dict[str, list[float]] = {}
    scores = {}
    for _ in range(args.repetitions):
        for way, rank in (("CrossEncoder.predict", theirs), ("ours", ours)):
            for kind, texts in (("retrieved", candidates), ("distinct", distinct)):
                start = time.perf_counter()
                scores[way, kind] = rank(texts)
                seconds.setdefault(f"{way}, {kind}", []).append(time.perf_counter() - start)
    rows, ratios = [], {}
    for kind, texts in (("retrieved", candidates), ("distinct", distinct)):
        number = len(queries) * len(texts)
        speed = {way: number / np.median(seconds[f"{way}, {kind}"]) for way in ("CrossEncoder.predict", "ours")}
        ratios[kind] = speed["ours"] / speed["CrossEncoder.predict"]
        rows.append([kind, str(number), *(f"{value:.0f}" for value in speed.values()), f"{ratios[kind]:.2f}"])
    print(format_table(["candidates", "pairs", "CrossEncoder pairs/s", "ours pairs/s", "ratio"], rows))
    one, other = scores["ours", "retrieved"], scores["CrossEncoder.predict", "retrieved"]
    largest = float(np.abs(one - other).max())
    same = bool((np.argsort(-one, kind="stable") == np.argsort(-other, kind="stable")).all())
    print(
        f"\nScores differ by {largest:.1e} at most; rank correlation {spearman(one, other):.6f}; same order: {same}."
    )
    write_json(
        args.output,
        {
            "num_queries": len(queries),
            "num_candidates": len(candidates),
            "num_distinct": len(distinct),
            "seconds": seconds,
            "ratios": ratios,
            "largest_difference": largest,
            "same_order": same,
        },
    )


if __name__ == "__main__":
    main()
