"""Training a reranker: processor seconds and quality against sentence-transformers' `CrossEncoderTrainer`, on pairs mined with the starter.

    OMP_NUM_THREADS=1 python benchmarks/reranker_training.py --supervision supervision

Pairs are mined once (the reversal, a minute or two) and kept in `--supervision`. Both trainers start from the same random weights in the
shape of the starter's reranker and take the same number of steps with the same batch size, learning rate, warm-up and length limit:
`binary` against `BinaryCrossEntropyLoss`, pair by pair, and `pairwise` against `RankNetLoss`, which takes whole queries: as many a batch as
have that number of pairs on average. The two take turns, each repetition with another seed. Both rerankers are scored by `evaluate_reranker` on the query sets of tasks that neither was trained on.
Time is that of this process on the processor, so that other work on the machine counts for little.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from figures import Figure, report
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss, RankNetLoss
from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

from recross_hf import (
    CrossEncoderReranker,
    DenseRetriever,
    ReCrossPipeline,
    RerankerTrainer,
    RerankerTrainingArguments,
    SupervisionArguments,
    evaluate_reranker,
    mine_supervision,
    split_by_task,
)
from recross_hf.core.tables import format_table
from recross_hf.reranking.losses import binary, pairwise
from recross_hf.supervision.utility import by_reversal

QUALITIES = ("auc", "accuracy", "spearman")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--supervision", type=Path, help="the folder of mined query sets; a temporary one by default")
    parser.add_argument("--query_sets", type=int, default=60)
    parser.add_argument("--num_candidates", type=int, default=40)
    parser.add_argument("--num_held_out", type=int, default=60)
    parser.add_argument("--num_dev_tasks", type=int, default=6, help="tasks to hold out")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch_size", type=int, default=64, help="pairs a step")
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--warmup_steps", type=int, default=10)
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/reranker_training.json"))
    options = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()

    pipeline = ReCrossPipeline.from_pretrained(verify_checksums=False, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        pairs = mined_pairs(pipeline, options, options.supervision or Path(scratch) / "supervision")
        train, dev = split_by_task(pairs, num_dev_tasks=options.num_dev_tasks)
        seconds: dict[str, list[float]] = defaultdict(list)
        quality: dict[str, list[dict[str, float]]] = defaultdict(list)
        ways = {"ours": train_ours, "sentence-transformers": train_theirs}
        for seed in range(options.repetitions):
            untrained = Path(scratch) / f"untrained-{seed}"
            save_untrained(pipeline, untrained, seed)
            how = settings(options, seed, scratch)
            if seed == 0:  # what either imports or prepares when it first runs is no training
                for trained in ways.values():
                    trained(untrained, train.select(range(options.batch_size)), "binary", how | {"max_steps": 1})
            for loss in ("binary", "pairwise"):
                for way in sorted(ways, reverse=bool(seed % 2)):
                    start = time.process_time()
                    reranker, num_pairs = ways[way](untrained, train, loss, how)
                    seconds[f"{way}, {loss}"].append((time.process_time() - start) / num_pairs)
                    quality[f"{way}, {loss}"].append(evaluate_reranker(reranker, dev))
    report(figures_of(seconds), raw_of(seconds, quality, options, len(train), len(dev)), options.output)
    print("\n" + format_quality(quality))


def mined_pairs(pipeline: ReCrossPipeline, options: argparse.Namespace, folder: Path) -> Dataset:
    """Pairs of the starter's upstream tasks, labelled as the starter's own are."""
    args = SupervisionArguments(
        num_query_sets=options.query_sets,
        num_candidates=options.num_candidates,
        num_held_out=options.num_held_out,
        label_by="task",
        num_rounds=2,
        learning_rate=2e-4,
        per_device_train_batch_size=4,
        max_input_length=pipeline.adaptation["max_input_length"],
        max_target_length=pipeline.adaptation["max_target_length"],
    )
    model, upstream = pipeline.upstream_model, pipeline.index.dataset
    retriever = DenseRetriever(pipeline.index)
    return mine_supervision(
        model, pipeline.processing_class, retriever, upstream, folder, args, utility_estimator=by_reversal
    )


def save_untrained(pipeline: ReCrossPipeline, folder: Path, seed: int) -> None:
    """Random weights in the shape of the starter's reranker, with its tokenizer, which gives each text of a pair its own type."""
    set_seed(seed)
    config = type(pipeline.reranker.model.config).from_dict(pipeline.reranker.model.config.to_dict() | {"dtype": None})
    AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).save_pretrained(folder)
    pipeline.reranker.processing_class.save_pretrained(folder)


def settings(options: argparse.Namespace, seed: int, scratch: str) -> dict[str, Any]:
    """What both trainers are told."""
    return {
        "output_dir": f"{scratch}/training",
        "max_steps": options.steps,
        "per_device_train_batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "warmup_steps": options.warmup_steps,
        "max_length": options.max_length,
        "seed": seed,
        "use_cpu": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def train_ours(folder: Path, pairs: Dataset, loss: str, how: dict[str, Any]) -> tuple[CrossEncoderReranker, float]:
    """The reranker and the number of pairs that it was trained on, those of an epoch counted once an epoch."""
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    args = RerankerTrainingArguments(**how, group_by_query=loss == "pairwise")
    function = {"binary": binary, "pairwise": pairwise}[loss]
    trainer = RerankerTrainer(
        model, args, train_dataset=pairs, processing_class=AutoTokenizer.from_pretrained(folder), loss=function
    )
    set_seed(how["seed"])
    trainer.train()
    return trainer.reranker(), how["max_steps"] * how["per_device_train_batch_size"]


def train_theirs(folder: Path, pairs: Dataset, loss: str, how: dict[str, Any]) -> tuple[CrossEncoderReranker, float]:
    """As [`train_ours`], by sentence-transformers."""
    how = dict(how)
    max_length = how.pop("max_length")
    cross_encoder = CrossEncoder(
        str(folder), num_labels=1, max_length=max_length, device="cpu", activation_fn=torch.nn.Identity()
    )
    if loss == "binary":
        dataset = pairs.select_columns(["query", "candidate", "label"])
        function = BinaryCrossEntropyLoss(cross_encoder)
    else:
        dataset = queries_with_candidates(pairs)
        how["per_device_train_batch_size"] = round(how["per_device_train_batch_size"] * len(dataset) / len(pairs))
        # One forward pass a batch and natural logarithms, as ours.
        function = RankNetLoss(cross_encoder, mini_batch_size=-1, reduction_log="natural")
    args = CrossEncoderTrainingArguments(**how)
    trainer = CrossEncoderTrainer(cross_encoder, args, train_dataset=dataset, loss=function)
    set_seed(how["seed"])
    trainer.train()
    model = cross_encoder[0].model.eval()
    num_pairs = how["max_steps"] * how["per_device_train_batch_size"] * len(pairs) / len(dataset)
    return CrossEncoderReranker(model, AutoTokenizer.from_pretrained(folder), max_length=max_length), num_pairs


def queries_with_candidates(pairs: Dataset) -> Dataset:
    """A row for each query of each set: the query, its candidates and their utilities; only the order of these counts."""
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for pair in pairs:
        row = rows.setdefault((pair["set"], pair["query"]), {"query": pair["query"], "docs": [], "labels": []})
        row["docs"].append(pair["candidate"])
        row["labels"].append(pair["utility"])
    return Dataset.from_list(list(rows.values()))


def figures_of(seconds: dict[str, list[float]]) -> list[Figure]:
    """Speeds, of processor seconds a pair."""
    figures = []
    for loss, peer in (("binary", "BinaryCrossEntropyLoss"), ("pairwise", "RankNetLoss")):
        own, others = seconds[f"ours, {loss}"], seconds[f"sentence-transformers, {loss}"]
        figures.append(
            Figure(
                what=f"training a reranker, {loss}",
                unit="pairs a processor second",
                ours=1 / float(np.median(own)),
                peer=1 / float(np.median(others)),
                peer_name=f"CrossEncoderTrainer, {peer}",
                ratio=float(np.median(np.divide(others, own))),
            )
        )
    return figures


def raw_of(
    seconds: dict[str, list[float]],
    quality: dict[str, list[dict[str, float]]],
    options: argparse.Namespace,
    num_train: int,
    num_dev: int,
) -> dict[str, Any]:
    told = {name: value for name, value in vars(options).items() if name not in ("supervision", "output")}
    return {
        "options": told,
        "num_train_pairs": num_train,
        "num_dev_pairs": num_dev,
        "threads": torch.get_num_threads(),
        "processor_seconds_a_pair": seconds,
        "quality": quality,
    }


def format_quality(quality: dict[str, list[dict[str, float]]]) -> str:
    rows = [
        [way, *("{:.3f} ({:.3f} to {:.3f})".format(*mean_and_range(found, name)) for name in QUALITIES)]
        for way, found in quality.items()
    ]
    dense = next(iter(quality.values()))[0]
    rows.append(["dense order", *(f"{dense[f'dense_{name}']:.3f}" for name in QUALITIES)])
    return format_table(["on held-out tasks", *QUALITIES], rows)


def mean_and_range(found: list[dict[str, float]], name: str) -> tuple[float, float, float]:
    values = [metrics[name] for metrics in found]
    return float(np.mean(values)), min(values), max(values)


if __name__ == "__main__":
    main()
