"""Examples encoded a second: `MeanPooledEncoder` against `SentenceTransformer.encode` with the same weights.

    python benchmarks/encoding.py --model minilm0 --inputs 'upstream/*/train.parquet' --columns references=outputs id=example_id

Both run in turn, several times, on the same inputs; medians and the ratio pair by pair are printed, and all timings are kept
in benchmarks/results/encoding.json.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

from recross_hf import MeanPooledEncoder, load_examples
from recross_hf.files import write_json
from recross_hf.report import format_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a BERT-like sequence-to-sequence model (EncoderDecoderModel)")
    parser.add_argument("--inputs", nargs="+", required=True)
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--num_inputs", type=int, default=5000)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--token_budgets", type=int, nargs="*", default=[], help="budgets to compare, the default besides"
    )
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encoding.json"))
    args = parser.parse_args()

    examples = load_examples(args.inputs, columns=dict(pair.split("=", 1) for pair in args.columns))
    texts = examples.shuffle(seed=0).select(range(args.num_inputs))["input"][:]
    ours = MeanPooledEncoder.from_pretrained(args.model, max_length=args.max_length)
    with tempfile.TemporaryDirectory() as folder:
        ours.model.save_pretrained(folder)
        ours.processing_class.save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=args.max_length)
        device = str(ours.model.device)
        peer = SentenceTransformer(modules=[transformer, Pooling(ours.dimension, "mean")], device=device)

    contenders = {"SentenceTransformer.encode": lambda: peer.encode(texts, show_progress_bar=False)}
    budgets = {
        f"MeanPooledEncoder.encode, budget {budget}": budget for budget in (ours.token_budget, *args.token_budgets)
    }
    for name, budget in budgets.items():
        contenders[name] = lambda budget=budget: _encode(ours, texts, budget)
    peer.encode(texts[:32])  # what happens only once is not timed
    ours.encode(texts[:32])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(args.repeats):
        for name, encode in contenders.items():
            start = time.perf_counter()
            vectors[name] = encode()
            seconds[name].append(time.perf_counter() - start)
    reference = seconds["SentenceTransformer.encode"]
    ratios = {name: median(a / b for a, b in zip(reference, times, strict=True)) for name, times in seconds.items()}
    expected = vectors["SentenceTransformer.encode"]
    difference = max(float(np.abs(found - expected).max()) for found in vectors.values())
    rows = [[name, f"{len(texts) / median(times):.1f}", f"{ratios[name]:.2f}"] for name, times in seconds.items()]
    print(format_table([f"{len(texts)} inputs, {torch.get_num_threads()} threads", "examples/s", "ratio"], rows))
    print(f"largest difference between the vectors: {difference:.1e}")
    write_json(
        args.output,
        {
            "num_inputs": len(texts),
            "max_length": args.max_length,
            "threads": torch.get_num_threads(),
            "device": str(ours.model.device),
            "seconds": seconds,
            "median_ratio": ratios,
            "largest_difference": difference,
        },
    )


def _encode(encoder: MeanPooledEncoder, texts: list[str], token_budget: int) -> np.ndarray:
    encoder.token_budget = token_budget
    return encoder.encode(texts)


if __name__ == "__main__":
    main()
