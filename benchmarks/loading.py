"""Loading a warm pipeline, beside loading its model, reranker and memory-mapped index by hand.

    python benchmarks/loading.py --pipeline minilm0-pipeline --num_examples 118000

The pipeline's own model and reranker (the starter's where it has none) with an index of so many made-up examples and vectors, written by
the real code. Each side loads in processes of its own, by turns; libraries are imported before the clock starts. Memory is what the process
holds more after loading; an index that is mapped is not part of it. Kept in benchmarks/results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch
from datasets import Dataset

from recross_hf import MeanPooledEncoder, ReCrossPipeline, UpstreamIndex
from recross_hf.files import write_json
from recross_hf.report import format_table
from recross_hf.vector_shards import PROBES


class MadeUpVectors(MeanPooledEncoder):
    """The model's own encoder, whose vectors of examples are drawn at random: to encode them would take long."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        if list(texts) == list(PROBES):
            return super().encode(texts)
        return np.random.default_rng(len(texts)).normal(size=(len(texts), self.dimension)).astype(np.float32)

    def identity(self) -> dict[str, object]:
        return super().identity() | {"class": "MeanPooledEncoder"}


def write_pipeline(source: str | None, num_examples: int, folder: Path) -> None:
    pipeline = ReCrossPipeline.from_pretrained(source)
    generator = np.random.default_rng(0)
    words = np.asarray([f"word{number}" for number in range(5_000)])
    columns = {
        "id": [f"made-up/{number}" for number in range(num_examples)],
        "task": [f"task{number % 34}" for number in range(num_examples)],
        "template": ["plain"] * num_examples,
        "input": [" ".join(row) for row in words[generator.integers(0, len(words), (num_examples, 60))]],
        "references": [["yes"]] * num_examples,
    }
    encoder = MadeUpVectors.from_settings(
        pipeline.upstream_model, pipeline.processing_class, pipeline.index.encoder.settings
    )
    index = UpstreamIndex.build(Dataset.from_dict(columns), encoder, folder / "made-up")
    index.encoder = pipeline.index.encoder
    reranker = pipeline.reranker or ReCrossPipeline.from_pretrained().reranker
    whole = ReCrossPipeline(
        pipeline.upstream_model, pipeline.processing_class, index, reranker=reranker, adaptation=pipeline.adaptation
    )
    whole.save_pretrained(folder / "pipeline")


def load_ours(folder: Path) -> list[object]:
    pipeline = ReCrossPipeline.from_pretrained(folder, device="cpu")
    return [pipeline.model, pipeline.processing_class, pipeline.reranker, pipeline.index]


def load_by_hand(folder: Path) -> list[object]:
    import faiss
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

    loaded: list[object] = []
    for auto_class, name in (
        (AutoModelForSeq2SeqLM, "upstream_model"),
        (AutoModelForSequenceClassification, "reranker"),
    ):
        loaded.append(auto_class.from_pretrained(folder / name, dtype=torch.float32).eval())
        loaded.append(AutoTokenizer.from_pretrained(folder / name))
    loaded.append(Dataset.from_parquet(str(folder / "index" / "examples.parquet")))
    loaded.append(faiss.read_index(str(folder / "index" / "index.faiss"), faiss.IO_FLAG_MMAP_IFC))
    return loaded


SIDES = {"recross_hf": load_ours, "by hand": load_by_hand}


def measure(side: str, folder: Path) -> dict[str, float]:
    """Loads in this process."""
    ReCrossPipeline.from_pretrained().model  # noqa: B018  what is imported late
    load_by_hand(Path(sys.modules["recross_hf.starter"].STARTER_DIRECTORY))
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    loaded = SIDES[side](folder)
    seconds = time.perf_counter() - start
    held = psutil.Process().memory_info().rss - before
    return {"seconds": seconds, "held_mb": held / 1e6, "parts": len(loaded)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="a pipeline folder; the starter by default")
    parser.add_argument("--num_examples", type=int, default=118_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/loading.json"))
    parser.add_argument("--side", choices=SIDES, help="load one side from --pipeline in this process")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, Path(args.pipeline))))
        return
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as scratch:
        write_pipeline(args.pipeline, args.num_examples, Path(scratch))
        folder = Path(scratch) / "pipeline"
        index_mb = (folder / "index" / "index.faiss").stat().st_size / 1e6
        for repetition in range(args.repetitions + 1):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--pipeline", str(folder)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                if repetition:  # the first run fills caches
                    runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {side: statistics.median(run["seconds"] for run in found) for side, found in runs.items()}
    ratio = medians["recross_hf"] / medians["by hand"]
    rows = [
        [
            side,
            f"{medians[side]:.2f} s",
            f"{min(run['seconds'] for run in found):.2f} to {max(run['seconds'] for run in found):.2f}",
            f"{statistics.median(run['held_mb'] for run in found):.0f} MB",
        ]
        for side, found in runs.items()
    ]
    print(format_table([f"{args.num_examples:,} examples", "median", "range", "held after loading"], rows))
    print(f"ratio {ratio:.2f} (limit 1.2); the index on disk: {index_mb:.0f} MB")
    write_json(args.output, {"num_examples": args.num_examples, "index_mb": index_mb, "ratio": ratio, "runs": runs})


if __name__ == "__main__":
    main()
