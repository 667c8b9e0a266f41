"""Peak memory of building an index, beside what it must hold: the model and the index.

    python benchmarks/build_memory.py --model minilm0 --train_files 'upstream/*/train.parquet' \
        --columns references=outputs id=example_id

The process's peak is compared with its memory before the build (libraries, model and examples loaded) plus the size of the index on
disk; the excess is to be at most 500 MB. Kept in benchmarks/results/build_memory.json.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import psutil

from recross_hf import MeanPooledEncoder, UpstreamIndex, load_examples
from recross_hf.core.files import write_json
from recross_hf.core.tables import format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train_files", nargs="+", required=True)
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--max_length", type=int, default=None)
    parser.add_argument("--factory", default="Flat")
    parser.add_argument("--output_dir", help="keep the index there; a temporary folder by default")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/build_memory.json"))
    args = parser.parse_args()

    examples = load_examples(args.train_files, columns=dict(pair.split("=", 1) for pair in args.columns))
    encoder = MeanPooledEncoder.from_pretrained(args.model, max_length=args.max_length)
    encoder.encode(["warm up"])
    before = psutil.Process().memory_info().rss
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(args.output_dir or folder)
        index = UpstreamIndex.build(examples, encoder, directory, factory=args.factory)
        seconds = time.perf_counter() - start
        size = (directory / "index.faiss").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    results = {
        "num_examples": len(index),
        "factory": args.factory,
        "before_mb": before / 1e6,
        "index_mb": size / 1e6,
        "peak_mb": peak / 1e6,
        "excess_mb": (peak - before - size) / 1e6,
        "seconds": seconds,
        "examples_per_second": len(index) / seconds,
    }
    rows = [[name, f"{results[name]:.0f}"] for name in ("before_mb", "index_mb", "peak_mb", "excess_mb", "seconds")]
    print(format_table([f"{len(index)} examples, {args.factory}", "value"], rows))
    write_json(args.output, results)


if __name__ == "__main__":
    main()
