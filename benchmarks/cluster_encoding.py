"""Encoding through a Ray worker beside this process alone, on the same rows, and the memory of the driver.

    python benchmarks/cluster_encoding.py
    python benchmarks/cluster_encoding.py --model minilm0 --num_rows 65536

Random weights of the shape of all-MiniLM-L6-v2 encode the starter's examples, repeated, as `UpstreamIndex.build` does (shards of vectors on
disk) and as one worker of `build_cluster_index` does (fragments of a Lance data set), by turns, with one thread each. The start of Ray and
of the worker is told apart. A whole build of many rows with simulated vectors comes first, and the memory of this process is watched: it is to
stay within 300 MB above what it was before. Kept in benchmarks/results/cluster_encoding.json.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from figures import Figure, report
from transformers import BertConfig, BertModel

from recross_hf import MeanPooledEncoder, ReCrossPipeline, build_cluster_index, load_examples, warm_start_seq2seq
from recross_hf.retrieval.cluster.engine import WorkerPool, connected, create_worker
from recross_hf.retrieval.cluster.sources import ParquetSource
from recross_hf.retrieval.cluster.workers import ChunkWorker
from recross_hf.retrieval.lance.location import Location
from recross_hf.retrieval.vector_shards import SHARD_SIZE, VectorShards

MOST_DRIVER_MB = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="any model that MeanPooledEncoder takes; random weights by default")
    parser.add_argument("--num_rows", type=int, default=2 * SHARD_SIZE)
    parser.add_argument("--driver_rows", type=int, default=1_000_000, help="rows of the build with simulated vectors")
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6, help="of the random weights")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/cluster_encoding.json"))
    args = parser.parse_args()

    torch.set_num_threads(1)  # as Ray gives a worker of one CPU
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = args.model or str(_random_minilm(folder, args.layers))
        make_encoder = partial(MeanPooledEncoder.from_pretrained, model, max_length=args.max_length)
        _write_examples(folder / "many.parquet", args.driver_rows)
        _write_examples(folder / "upstream.parquet", args.num_rows)
        driver = _driver_memory(folder)
        seconds, start_up = _by_turns(folder, make_encoder, args.repeats)
    speed = {name: args.num_rows / median(times) for name, times in seconds.items()}
    figures = [
        Figure(
            what=f"encoding {args.num_rows:,} rows through one Ray worker",
            unit="examples/s",
            ours=speed["worker"],
            peer=speed["process"],
            peer_name="UpstreamIndex.build's encoding in one process",
            ratio=median(a / b for a, b in zip(seconds["process"], seconds["worker"], strict=True)),
            goal=0.95,
        ),
        Figure(
            what=f"memory of the driver above its start, {args.driver_rows:,} rows",
            unit="MB",
            ours=driver["above_start_mb"],
            peer=MOST_DRIVER_MB,
            peer_name="most that it may be",
            ratio=driver["above_start_mb"] / MOST_DRIVER_MB,
            goal=1.0,
            at_most=True,
        ),
    ]
    report(figures, {"seconds": seconds, "start_up_seconds": start_up, "driver": driver}, args.output)


def _random_minilm(folder: Path, layers: int) -> Path:
    tokenizer = ReCrossPipeline.from_pretrained().processing_class
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=384,
        num_hidden_layers=layers,
        num_attention_heads=12,
        intermediate_size=1536,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder / "bert")
    tokenizer.model_max_length = 512
    tokenizer.add_special_tokens({"cls_token": tokenizer.bos_token, "sep_token": tokenizer.eos_token})
    tokenizer.save_pretrained(folder / "bert")
    grown, tokenizer = warm_start_seq2seq(folder / "bert", decoder_layers=1)
    grown.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def _write_examples(path: Path, num_rows: int) -> None:
    """The starter's examples, repeated, each with a text and an id of its own."""
    examples = ReCrossPipeline.from_pretrained().index.dataset.with_format("arrow")[:]
    repeated = pa.concat_tables([examples] * -(-num_rows // len(examples))).slice(0, num_rows)
    texts = [f"{text} ({row})" for row, text in enumerate(repeated["input"].to_pylist())]
    repeated = repeated.drop_columns(["id", "input"]).append_column("input", pa.array(texts))
    pq.write_table(repeated, path, row_group_size=SHARD_SIZE)


def _by_turns(folder: Path, make_encoder, repeats: int) -> tuple[dict[str, list[float]], float]:
    encoder = make_encoder()
    encoder.encode(["warm up"])
    dataset = load_examples(folder / "upstream.parquet")
    source = ParquetSource.of(str(folder / "upstream.parquet"))
    chunks = source.chunks(source.default_chunk_size())
    kinds = [f"{name}{of}" for name in ("process", "worker") for of in ("", ", of the processor")]
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    start = time.perf_counter()
    with connected(num_workers=1) as ray:
        location = Location.of(folder / "lance")
        create = partial(create_worker, ray, TimedWorker, {"num_cpus": 1}, source, make_encoder, location, "float32")
        pool = WorkerPool(ray, create, 1, start_timeout=600)
        described = pool.description()
        start_up = time.perf_counter() - start
        for turn in range(repeats):
            shards = VectorShards(folder / f"shards{turn}", len(dataset), SHARD_SIZE, np.dtype(np.float32))
            start = time.perf_counter()
            processor = time.process_time()
            shards.encode(dataset, encoder, shards.missing(), show_progress=False)
            seconds["process"].append(time.perf_counter() - start)
            seconds["process, of the processor"].append(time.process_time() - processor)
            start, processor = time.perf_counter(), _processor_seconds(ray, pool)
            written = list(pool.written(chunks, described))
            seconds["worker"].append(time.perf_counter() - start)
            seconds["worker, of the processor"].append(_processor_seconds(ray, pool) - processor)
            assert len(written) == len(chunks)
        pool.close()
    return seconds, start_up


class TimedWorker(ChunkWorker):
    """Tells what its process took of the processor: on a machine that others use, too, that says more than a clock."""

    def processor_seconds(self) -> float:
        return time.process_time()


def _processor_seconds(ray, pool: WorkerPool) -> float:
    return ray.get(pool.actors[0].processor_seconds.remote())


class SimulatedEncoder:
    """Vectors at no cost: the rate of all else."""

    def __init__(self) -> None:
        self.vectors = np.random.default_rng(0).normal(size=(SHARD_SIZE, 384)).astype(np.float32)

    def encode(self, texts: list[str]) -> np.ndarray:
        return self.vectors[: len(texts)]


def _driver_memory(folder: Path) -> dict[str, float]:
    process, peak, is_done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not is_done.wait(0.05):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    many, storage = str(folder / "many.parquet"), folder / "index"
    build_cluster_index(
        many, SimulatedEncoder, storage, num_workers=1, min_recall=0.0
    )  # random vectors have no neighbours
    is_done.set()
    watcher.join()
    return {
        "before_mb": before / 1e6,
        "above_start_mb": (peak[0] - before) / 1e6,
        "build_seconds": time.perf_counter() - start,
    }


if __name__ == "__main__":
    main()
