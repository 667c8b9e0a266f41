"""Loading a warm pipeline, beside loading its model, reranker and memory-mapped index by hand.

    python benchmarks/loading.py --pipeline minilm0-pipeline --num_examples 118000

The pipeline's own model and reranker (the starter's where it has none) with an index of so many made-up examples and vectors, written by
the real code, and published to the tests' Hub on the loopback interface. Three sides load it, each in processes of its own, by turns: from
the folder; from the Hub, pinned to a commit, out of a cache that is filled and verified, the requests of all these runs being counted; and
by hand, from the folder. Libraries are imported before the clock starts. Memory is what the process holds more after loading, what of that
are pages of mapped files, which it shares and may give back, and the most that it held more on the way (Linux alone can tell). Kept in
benchmarks/results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import re
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
from figures import Figure, report

from recross_hf import MeanPooledEncoder, ReCrossPipeline, UpstreamIndex
from recross_hf.core.tables import format_table
from recross_hf.data.starter import STARTER_DIRECTORY
from recross_hf.retrieval.vector_shards import PROBES

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from loopback_hub import Client, LoopbackHub, client_environment

REPOSITORY = "org/loading"


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


def load_ours(name: str, revision: str | None) -> list[object]:
    pipeline = ReCrossPipeline.from_pretrained(name, revision=revision, device="cpu")
    return [pipeline.model, pipeline.processing_class, pipeline.reranker, pipeline.index]


def load_by_hand(name: str, revision: None = None) -> list[object]:
    import faiss
    from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer

    folder = Path(name)
    loaded: list[object] = []
    for auto_class, part in (
        (AutoModelForSeq2SeqLM, "upstream_model"),
        (AutoModelForSequenceClassification, "reranker"),
    ):
        loaded.append(auto_class.from_pretrained(folder / part, dtype=torch.float32).eval())
        loaded.append(AutoTokenizer.from_pretrained(folder / part))
    loaded.append(Dataset.from_parquet(str(folder / "index" / "examples.parquet")))
    loaded.append(faiss.read_index(str(folder / "index" / "index.faiss"), faiss.IO_FLAG_MMAP_IFC))
    return loaded


SIDES = {"folder": load_ours, "Hub": load_ours, "by hand": load_by_hand}


def peak() -> int:
    """The most that this process has held since its mark was wiped, in bytes."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


def measure(side: str, name: str, revision: str | None) -> dict[str, float]:
    """Loads in this process."""
    ReCrossPipeline.from_pretrained().model  # noqa: B018  what is imported late
    load_by_hand(str(STARTER_DIRECTORY))
    Path("/proc/self/clear_refs").write_text("5")  # wipes the mark
    process = psutil.Process()
    before = process.memory_info()
    start, started = time.perf_counter(), time.process_time()
    loaded = SIDES[side](name, revision)
    seconds, processor_seconds = time.perf_counter() - start, time.process_time() - started
    after = process.memory_info()
    return {
        "seconds": seconds,
        "processor_seconds": processor_seconds,
        "held_mb": (after.rss - before.rss) / 1e6,
        "mapped_mb": (after.shared - before.shared) / 1e6,
        "peak_mb": (peak() - before.rss) / 1e6,
        "parts": len(loaded),
    }


def published(hub: LoopbackHub, folder: Path, home: Path) -> str:
    """The commit of the folder's pipeline on the Hub."""
    with Client(client_environment(hub.endpoint, home, hub.token), home, timeout=600) as client:
        return client("hub_steps:publish", pipeline=str(folder), repo_id=REPOSITORY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pipeline", help="a pipeline folder; the starter by default")
    parser.add_argument("--num_examples", type=int, default=118_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/loading.json"))
    parser.add_argument("--side", choices=SIDES, help="load --pipeline as one side does, in this process")
    parser.add_argument("--revision", help="of what that side loads")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(measure(args.side, args.pipeline, args.revision)))
        return
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as scratch, LoopbackHub() as hub:
        write_pipeline(args.pipeline, args.num_examples, Path(scratch))
        folder, home = Path(scratch) / "pipeline", Path(scratch) / "home"
        home.mkdir()
        index_mb = (folder / "index" / "index.faiss").stat().st_size / 1e6
        pinned = [REPOSITORY, "--revision", published(hub, folder, home)]
        for repetition in range(args.repetitions + 1):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--pipeline"]
                command += pinned if side == "Hub" else [str(folder)]
                environment = client_environment(hub.endpoint, home)
                done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                if repetition:
                    runs[side].append(json.loads(done.stdout.splitlines()[-1]))
            if repetition == 0:  # the first run fills caches
                assert hub.requests, "Expected files to be fetched, found no request"
                hub.requests.clear()
        requests = len(hub.requests)

    def median(side: str, name: str) -> float:
        return statistics.median(run[name] for run in runs[side])

    ratios = {
        side: {name: median(side, name) / median("by hand", name) for name in ("seconds", "processor_seconds")}
        for side in ("folder", "Hub")
    }
    rows = [
        [
            side,
            f"{median(side, 'seconds'):.3f} s",
            f"{min(run['seconds'] for run in found):.3f} to {max(run['seconds'] for run in found):.3f}",
            f"{median(side, 'processor_seconds'):.3f} s",
            *(f"{median(side, name):.0f} MB" for name in ("held_mb", "mapped_mb", "peak_mb")),
        ]
        for side, found in runs.items()
    ]
    header = [f"{args.num_examples:,} examples", "median", "range", "processor", "held", "of it mapped", "peak"]
    print(format_table(header, rows))
    print(f"the index on disk: {index_mb:.0f} MB")
    print(f"requests, pinned and cached, in {args.repetitions} runs: {requests} (limit 0)")
    content = {"num_examples": args.num_examples, "index_mb": index_mb, "ratios": ratios, "requests": requests}
    figures = [
        Figure(
            what=f"loading a warm pipeline of {args.num_examples:,} examples, from {'a' if side == 'folder' else 'the'} {side}",
            unit="s",
            ours=median(side, "seconds"),
            peer=median("by hand", "seconds"),
            peer_name="by hand, from the folder",
            ratio=ratio["seconds"],
            goal=1.2,
            at_most=True,
        )
        for side, ratio in ratios.items()
    ]
    report(figures, content | {"runs": runs}, args.output)


if __name__ == "__main__":
    main()
