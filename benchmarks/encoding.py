"""Examples encoded a second: `MeanPooledEncoder` against `SentenceTransformer.encode` with the same weights, and the bound.

    python benchmarks/encoding.py
    python benchmarks/encoding.py --model minilm0 --inputs 'upstream/*/train.parquet' --columns references=outputs id=example_id

By default the starter's examples go through random weights of the shape of all-MiniLM-L6-v2, which take as long as trained ones. All run
in turn, several times, on the same inputs; medians and the ratio pair by pair are printed, and all timings are kept in
benchmarks/results/encoding.json. The bound is the model's forward pass alone, on batches of equally long inputs that are token ids on the device
already: nothing is tokenised, padded, masked or put in order.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import torch
from figures import Figure, report
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel

from recross_hf import MeanPooledEncoder, ReCrossPipeline, load_examples, warm_start_seq2seq

OURS, PEER, BOUND = "MeanPooledEncoder.encode", "SentenceTransformer.encode", "forward passes alone"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a BERT-like sequence-to-sequence model (EncoderDecoderModel)")
    parser.add_argument("--inputs", nargs="+", help="examples; the starter's by default")
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--num_inputs", type=int, default=5000)
    parser.add_argument("--max_length", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--token_budget", type=int, help="another one than the default")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encoding.json"))
    args = parser.parse_args()

    starter = ReCrossPipeline.from_pretrained()
    if args.inputs:
        examples = load_examples(args.inputs, columns=dict(pair.split("=", 1) for pair in args.columns))
    else:
        examples = starter.index.dataset
    texts = [
        examples[int(row)]["input"] for row in np.random.default_rng(0).permutation(len(examples))[: args.num_inputs]
    ]
    with tempfile.TemporaryDirectory() as folder:
        model = args.model or str(_random_minilm(Path(folder) / "grown", starter.processing_class))
        ours = MeanPooledEncoder.from_pretrained(model, max_length=args.max_length, token_budget=args.token_budget)
        ours.model.save_pretrained(folder)
        ours.processing_class.save_pretrained(folder)
        transformer = Transformer(folder, max_seq_length=args.max_length)
        device = str(ours.model.device)
        peer = SentenceTransformer(modules=[transformer, Pooling(ours.dimension, "mean")], device=device)

    batches = _batches_without_padding(ours, texts)
    contenders = {
        PEER: lambda: peer.encode(texts, show_progress_bar=False),
        OURS: lambda: ours.encode(texts),
        BOUND: lambda: _forward(ours, batches),
    }
    peer.encode(texts[:32])  # what happens only once is not timed
    ours.encode(texts[:32])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    vectors: dict[str, np.ndarray] = {}
    for _ in range(args.repeats):
        for name, encode in contenders.items():
            start = time.perf_counter()
            vectors[name] = encode()
            seconds[name].append(time.perf_counter() - start)
    difference = float(np.abs(vectors[PEER] - vectors[OURS]).max())
    speed = {name: len(texts) / median(times) for name, times in seconds.items()}
    lengths = [len(ids) for ids in ours.processing_class(texts, truncation=True, max_length=args.max_length).input_ids]
    figure = Figure(
        what=f"encoding {len(texts):,} inputs, {np.mean(lengths):.0f} tokens on average",
        unit="examples/s",
        ours=speed[OURS],
        peer=speed[PEER],
        peer_name=PEER,
        ratio=median(a / b for a, b in zip(seconds[PEER], seconds[OURS], strict=True)),
        goal=1.3,
        bound=speed[BOUND],
        least_of_bound=0.85,
    )
    raw = {
        "model": Path(args.model).name if args.model else "random MiniLM-L6",
        "max_length": args.max_length,
        "token_budget": ours.token_budget,
        "threads": torch.get_num_threads(),
        "device": device,
        "seconds": seconds,
        "largest_difference": difference,
    }
    report([figure], raw, args.output)
    print(f"largest difference between the vectors: {difference:.1e}")


def _random_minilm(folder: Path, tokenizer) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    BertModel(BertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **sizes)).save_pretrained(
        folder
    )
    tokenizer.model_max_length = 512
    tokenizer.add_special_tokens({"cls_token": tokenizer.bos_token, "sep_token": tokenizer.eos_token})
    tokenizer.save_pretrained(folder)
    model, tokenizer = warm_start_seq2seq(str(folder), decoder_layers=1)
    model.save_pretrained(folder / "seq2seq")
    tokenizer.save_pretrained(folder / "seq2seq")
    return folder / "seq2seq"


def _batches_without_padding(encoder: MeanPooledEncoder, texts: list[str]) -> list[torch.Tensor]:
    by_length = defaultdict(list)
    for ids in encoder.processing_class(texts, truncation=True, max_length=encoder.max_length).input_ids:
        by_length[len(ids)].append(ids)
    batches = []
    for length, rows in by_length.items():
        size = max(1, encoder.token_budget // length)
        batches += [torch.tensor(rows[start : start + size]) for start in range(0, len(rows), size)]
    return [batch.to(encoder.model.device) for batch in batches]


@torch.inference_mode()
def _forward(encoder: MeanPooledEncoder, batches: list[torch.Tensor]) -> np.ndarray:
    means = [encoder.model(input_ids=batch).last_hidden_state.mean(dim=1) for batch in batches]
    return torch.cat(means).cpu().numpy()


if __name__ == "__main__":
    main()
