"""Reranking: pairs a second against `sentence_transformers.CrossEncoder.predict` with the same weights, and the bound.

    python benchmarks/reranking.py --reranker reranker --pipeline minilm0-pipeline

16 queries and mu x |R| = 1,024 retrieved candidates of a pipeline's own data, by default of the starter. Candidates that several
queries bring are scored once; how much of the ratio that explains is shown by the second row, the same pairs without repetition.
The bound is the model's forward pass alone, on batches of equally long distinct pairs that are token ids on the device already.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import transformers
from figures import Figure, report
from sentence_transformers import CrossEncoder

from recross_hf import CrossEncoderReranker, DenseRetriever, ReCrossPipeline, load_starter_task, starter_tasks
from recross_hf.reranking.metrics import spearman


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
    if not args.reranker and pipeline.reranker is None:
        raise SystemExit("This pipeline has no reranker: name one with --reranker.")
    with tempfile.TemporaryDirectory() as saved:
        if not args.reranker:
            pipeline.reranker.save_pretrained(saved)
        folder = args.reranker or saved
        reranker = CrossEncoderReranker.from_pretrained(folder, autocast_dtype=torch.float32)
        cross_encoder = CrossEncoder(folder)
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

    batches = batches_without_padding(reranker, queries, distinct)
    seconds: dict[str, list[float]] = defaultdict(list)
    scores = {}
    for _ in range(args.repetitions):
        for way, rank in (("CrossEncoder.predict", theirs), ("ours", ours)):
            for kind, texts in (("retrieved", candidates), ("distinct", distinct)):
                start = time.perf_counter()
                scores[way, kind] = rank(texts)
                seconds[f"{way}, {kind}"].append(time.perf_counter() - start)
        start = time.perf_counter()
        forward(reranker, batches)
        seconds["bound, distinct"].append(time.perf_counter() - start)
    figures = []
    for kind, texts, bound in (("retrieved", candidates, False), ("distinct", distinct, True)):
        number = len(queries) * len(texts)
        own, others = seconds[f"ours, {kind}"], seconds[f"CrossEncoder.predict, {kind}"]
        figures.append(
            Figure(
                what=f"reranking {len(queries)} x {len(texts):,} {kind}",
                unit="pairs/s",
                ours=number / np.median(own),
                peer=number / np.median(others),
                peer_name="CrossEncoder.predict",
                ratio=float(np.median(np.divide(others, own))),
                goal=1.5,
                bound=number / np.median(seconds["bound, distinct"]) if bound else None,
                least_of_bound=0.8 if bound else None,
            )
        )
    one, other = scores["ours", "retrieved"], scores["CrossEncoder.predict", "retrieved"]
    largest = float(np.abs(one - other).max())
    same = bool((np.argsort(-one, kind="stable") == np.argsort(-other, kind="stable")).all())
    raw = {
        "num_queries": len(queries),
        "num_candidates": len(candidates),
        "num_distinct": len(distinct),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "largest_difference": largest,
        "same_order": same,
    }
    report(figures, raw, args.output)
    print(
        f"\nScores differ by {largest:.1e} at most; rank correlation {spearman(one, other):.6f}; same order: {same}."
    )


def batches_without_padding(
    reranker: CrossEncoderReranker, queries: list[str], candidates: list[str]
) -> list[dict[str, torch.Tensor]]:
    tokenizer = reranker.pair_tokenizer
    first, second = tokenizer.tokenize(queries), tokenizer.tokenize(candidates)
    by_length = defaultdict(list)
    for query in first:
        for other in second:
            by_length[tokenizer.length(len(query), len(other))].append(tokenizer.join(query, other))
    batches = []
    for length, pairs in by_length.items():
        size = max(1, reranker.token_budget // length)
        batches += [tokenizer.pad(pairs[start : start + size]) for start in range(0, len(pairs), size)]
    device = reranker.model.device
    return [
        {name: values.to(device) for name, values in batch.items() if name != "attention_mask"} for batch in batches
    ]


@torch.inference_mode()
def forward(reranker: CrossEncoderReranker, batches: list[dict[str, torch.Tensor]]) -> np.ndarray:
    return torch.cat([reranker.model(**batch).logits for batch in batches]).cpu().numpy()


if __name__ == "__main__":
    main()
