"""8-bit weights on a CPU: how much faster encoding and reranking get, and how much of what they choose stays the same.

    python benchmarks/quantization.py --encoder sentence-transformers/all-MiniLM-L6-v2

`torch.ao.quantization.quantize_dynamic` replaces the `Linear` layers by ones with 8-bit weights that round what they are given, too.
Scored and retrieved is in float32 and in 8 bits by turns: the starter's reranker on the starter's tasks, its own encoder and a real one on
the starter's inputs. Printed are the ratios of processor time pair by pair (run it with OMP_NUM_THREADS=1), the rank correlation, and the
overlap of the best, which is what an adaptation would learn from. Kept in benchmarks/results/quantization.json.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from recross_hf import DenseRetriever, ReCrossPipeline, load_starter_task, starter_tasks
from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table
from recross_hf.reranking.metrics import spearman


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2", help="a SentenceTransformer")
    parser.add_argument("--num_inputs", type=int, default=1000, help="that are encoded")
    parser.add_argument("--num_candidates", type=int, default=256, help="that are reranked; half of them are kept")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/quantization.json"))
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*quantiz.*")  # to be removed from torch, it says

    pipeline = ReCrossPipeline.from_pretrained()
    of_task = {task: load_starter_task(task)[0]["input"][:] for task in starter_tasks()}
    rows = np.random.default_rng(0).choice(len(pipeline.index), args.num_inputs, replace=False)
    inputs = pipeline.index.dataset[rows]["input"]
    own, real = pipeline.index.encoder, SentenceTransformer(args.encoder, device="cpu")
    own_rounded, real_rounded = copy.copy(own), copy.deepcopy(real)
    own_rounded.model = in_8_bits(own.model)
    real_rounded[0].model = in_8_bits(real[0].model)
    contenders = {
        "the starter's reranker": compare_reranker(pipeline, of_task, args.num_candidates, args.repetitions),
        "the starter's encoder": compare_encoders(own, own_rounded, inputs, of_task, args.repetitions),
        "a SentenceTransformer": compare_encoders(real, real_rounded, inputs, of_task, args.repetitions),
    }
    rows = [
        [name, f"{found['ratio']:.2f}", f"{found['spearman']:.3f}", f"{100 * found['overlap']:.1f}"]
        for name, found in contenders.items()
    ]
    print(format_table(["8 bits against float32", "times as fast", "spearman", "overlap, %"], rows))
    write_json(args.output, {"threads": torch.get_num_threads(), "torch": torch.__version__, "compared": contenders})


def in_8_bits(model: torch.nn.Module) -> torch.nn.Module:
    return torch.ao.quantization.quantize_dynamic(copy.deepcopy(model).eval(), {torch.nn.Linear}, dtype=torch.qint8)


def by_turns(ways: list[Callable[[], np.ndarray]], repetitions: int) -> tuple[list[list[float]], list[np.ndarray]]:
    """Seconds of each way and repetition, and what each way gave."""
    seconds: list[list[float]] = [[] for _ in ways]
    found = [way() for way in ways]  # what happens only once is not timed
    for _ in range(repetitions):
        for number, way in enumerate(ways):
            start = time.process_time()
            way()
            seconds[number].append(time.process_time() - start)
    return seconds, found


def agreement(expected: np.ndarray, found: np.ndarray, num_kept: int) -> tuple[float, float]:
    """Rank correlation of two rankings, and the share that their best `num_kept` have in common."""
    best = [set(np.argsort(-scores, kind="stable")[:num_kept].tolist()) for scores in (expected, found)]
    return spearman(expected, found), len(best[0] & best[1]) / num_kept


def summary(seconds: list[list[float]], agreements: list[tuple[float, float]]) -> dict[str, object]:
    return {
        "seconds": seconds,
        "ratio": median(a / b for a, b in zip(*seconds, strict=True)),
        "spearman": mean(found for found, _ in agreements),
        "overlap": mean(found for _, found in agreements),
    }


def compare_reranker(pipeline, of_task: dict[str, list[str]], num_candidates: int, repetitions: int):
    exact, rounded = pipeline.reranker, copy.copy(pipeline.reranker)
    rounded.model = in_8_bits(exact.model)
    agreements, seconds = [], [[], []]
    for queries in of_task.values():
        candidates = DenseRetriever(pipeline.index).retrieve(queries, num_candidates)["input"][:]
        ways = [lambda way=way: way.rank(queries, candidates) for way in (exact, rounded)]  # noqa: B023
        times, found = by_turns(ways, repetitions)
        for mine, theirs in zip(seconds, times, strict=True):
            mine.extend(theirs)
        agreements.append(agreement(*found, num_candidates // 2))
    return summary(seconds, agreements)


def compare_encoders(exact, rounded, inputs: list[str], of_task: dict[str, list[str]], repetitions: int):
    """The nearest 32 inputs of each query are compared: |R| / |Q| of the paper."""
    ways = [lambda way=way: np.asarray(way.encode(inputs)) for way in (exact, rounded)]
    seconds, vectors = by_turns(ways, repetitions)
    agreements = []
    for queries in of_task.values():
        distances = [
            ((among[None] - np.asarray(way.encode(queries))[:, None]) ** 2).sum(-1)
            for way, among in zip((exact, rounded), vectors, strict=True)
        ]
        agreements += [agreement(-one, -other, 32) for one, other in zip(*distances, strict=True)]
    return summary(seconds, agreements)


if __name__ == "__main__":
    main()
