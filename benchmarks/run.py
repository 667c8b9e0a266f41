"""All benchmarks with a peer, one after another, and one table of their figures: ours, the peer, the ratio, the bound, the goal.

    python benchmarks/run.py                     # the starter and made-up weights: nothing else is needed
    python benchmarks/run.py --quick             # the same work, less of it: to see that all of it runs
    python benchmarks/run.py --pipeline minilm0-pipeline --model minilm0 --inputs 'target/*/test.parquet' \\
        --columns references=outputs id=example_id
    python benchmarks/run.py --only encoding search --output_dir somewhere

Each runs in a process of its own and keeps its raw data as JSON in `--output_dir`; `figures.json` there holds all figures and what they
were measured on. One that fails is named at the end, and the others go on.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from figures import Figure, format_figures

from recross_hf.core.files import read_json, write_json

HERE = Path(__file__).parent
FULL = {
    "importing": [],
    "loading": [],
    "preparing": [],
    "upstream_training": [],
    "decoder_only": [],
    "encoding": [],
    "reranking": ["--num_candidates", "1024", "--repetitions", "2"],
    "search": [],
    "index_scale": ["--sizes", "100000", "1000000"],
    "generation": [],
    "mining": ["--repetitions", "2"],
    "adaptation_step": [],
    "adaptation_memory": [],
    "adapters": [],
    "benchmark_overhead": ["--tasks", "bus_stop", "village_race", "lost_property"],
    "rendering": [],
}
QUICK = {
    "importing": ["--repeats", "1"],
    "loading": ["--num_examples", "500", "--repetitions", "1"],
    "preparing": ["--num_rows", "1000"],
    "upstream_training": ["--steps", "2", "--repeats", "1"],
    "decoder_only": ["--num_examples", "200", "--num_inputs", "16", "--steps", "1", "--repeats", "1"],
    "encoding": ["--num_inputs", "64", "--repeats", "1"],
    "reranking": ["--num_candidates", "16", "--num_queries", "4", "--repetitions", "1"],
    "search": ["--num_vectors", "2000", "--repeats", "3"],
    "index_scale": ["--sizes", "6000", "--factories", "Flat", "SQ8", "--repeats", "1"],
    "generation": ["--num_inputs", "32", "--batch_sizes", "32", "--num_beams", "1", "--repeats", "1"],
    "mining": ["--repetitions", "1", "--rounds", "1"],
    "adaptation_step": ["--num_retrieved", "16", "--repeats", "1"],
    "adaptation_memory": ["--steps", "2"],
    "adapters": ["--layers", "2", "--hidden_size", "64", "--num_adapters", "3", "--repeats", "1"],
    "benchmark_overhead": ["--tasks", "bus_stop", "--methods", "none", "--num_test", "16"],
    "rendering": ["--num_examples", "100", "--repeats", "1"],
}
"""Arguments of each benchmark."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(FULL), help="run these")
    parser.add_argument("--quick", action="store_true", help="little work: the figures mean nothing")
    parser.add_argument("--pipeline", help="a pipeline folder, in place of the starter")
    parser.add_argument("--model", help="an EncoderDecoderModel, to encode and to generate with")
    parser.add_argument("--inputs", nargs="+", help="examples, to encode, to answer and to adapt to")
    parser.add_argument(
        "--columns", nargs="*", default=[], help="their columns, e.g. references=outputs id=example_id"
    )
    parser.add_argument(
        "--vectors", help="vectors of real inputs (.npy), after which those of large indexes are simulated"
    )
    parser.add_argument("--train_files", nargs="+", help="upstream examples, to train on in place of the starter's")
    parser.add_argument("--train_columns", nargs="*", default=[], help="their columns")
    parser.add_argument("--original_python", help="of an environment where PromptSource imports, to render beside it")
    parser.add_argument("--output_dir", type=Path, default=HERE / "results" / "run")
    args = parser.parse_args()
    if args.pipeline and not args.inputs:
        parser.error("--pipeline needs --inputs")
    if "rendering" in (args.only or []) and args.original_python is None:
        parser.error("rendering needs --original_python, of an environment where PromptSource imports")

    figures: list[Figure] = []
    failed, seconds = [], {}
    for name, arguments in (QUICK if args.quick else FULL).items():
        if args.only and name not in args.only:
            continue
        if name == "rendering" and args.original_python is None:
            print("\nrendering: left out without --original_python", flush=True)
            continue
        output = args.output_dir / f"{name}.json"
        unfinished = args.output_dir / f"{name}.unfinished.json"
        command = [
            sys.executable,
            str(HERE / f"{name}.py"),
            *arguments,
            *_data(name, args),
            "--output",
            str(unfinished),
        ]
        print(f"\n{name}", flush=True)
        unfinished.unlink(missing_ok=True)  # some add to what is there, of another run
        start = time.perf_counter()
        if subprocess.run(command).returncode:
            failed.append(name)
            continue
        unfinished.replace(output)
        seconds[name] = time.perf_counter() - start
        figures += [Figure(**figure) for figure in read_json(output)["figures"]]
    print(f"\n{format_figures(figures)}")
    write_json(
        args.output_dir / "figures.json",
        {"machine": _machine(), "seconds": seconds, "figures": [vars(figure) for figure in figures]},
    )
    if failed:
        raise SystemExit(f"Failed: {', '.join(failed)}. What each of them said stands above.")


def _data(name: str, args: argparse.Namespace) -> list[str]:
    """What of the user's own data and models a benchmark takes."""
    columns = ["--columns", *args.columns] if args.columns else []
    train_columns = ["--columns", *args.train_columns] if args.train_columns else []
    inputs = ["--inputs", *args.inputs, *columns] if args.inputs else []
    pipeline = ["--pipeline", args.pipeline] if args.pipeline else []
    queries = ["--queries", args.inputs[0], *_unlabelled(columns)] if args.pipeline else []
    return {
        "importing": [],
        "preparing": [],
        "upstream_training": ["--train_files", *args.train_files, *train_columns] if args.train_files else [],
        "decoder_only": ["--files", *args.train_files, *train_columns] if args.train_files else [],
        "benchmark_overhead": [],
        "rendering": ["--original_python", args.original_python or ""],
        "loading": pipeline,
        "index_scale": ["--vectors", args.vectors] if args.vectors else [],
        "generation": inputs + (["--model", args.model] if args.model else []),
        "encoding": inputs + (["--model", args.model] if args.model else []),
        "reranking": pipeline,
        "search": pipeline + queries,
        "mining": pipeline,
        "adaptation_step": pipeline + queries,
        "adaptation_memory": pipeline,
    }[name]


def _unlabelled(columns: list[str]) -> list[str]:
    return [column for column in columns if not column.startswith("references=")]


def _machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    packages = ("torch", "transformers", "sentence-transformers", "faiss-cpu", "datasets", "accelerate")
    return {
        "processor": platform.machine(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
