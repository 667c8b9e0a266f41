"""Which encoder finds the tasks that are alike? The states of decoder-only models, pooled in two ways, beside a sentence encoder.

    python benchmarks/encoders.py --models gemma-3-270m gemma-upstream --sentence_encoders all-MiniLM-L6-v2 \
        --train_files 'upstream/*/train.parquet' --held_out_files 'upstream/*/dev.parquet' --columns references=outputs id=example_id

Held-out inputs of each upstream task ask for their k nearest training examples. Two shares are counted, without any label: that of
the input's own task, and, with all examples of its data set left out as if the task were unseen, that of its family of tasks (Sanh et al.
2021, figure 2), for which an unseen task is to find examples. Chance is the share that the family has of what is left. A family of one data set
has nothing to find and is left out of the second. Means are over tasks, with intervals of a bootstrap over tasks; differences are paired by task.
A model or files that are not here are a reason to skip, which is printed.
"""

from __future__ import annotations

import argparse
import glob
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
import transformers
from datasets import Dataset, concatenate_datasets
from transformers import AutoTokenizer

from recross_hf import MeanPooledEncoder, SentenceEncoder, examples_by_task, load_examples
from recross_hf.core.files import write_json
from recross_hf.core.recipes import named_values
from recross_hf.core.statistics import interval_of
from recross_hf.core.tables import format_table
from recross_hf.models.adapters import load_upstream_model
from recross_hf.retrieval.encoder import Encoder

FAMILIES = {
    "paraphrase": ("glue-mrpc", "glue-qqp", "paws"),
    "sentiment": ("amazon_polarity", "app_reviews", "imdb", "rotten_tomatoes", "yelp"),
    "topic": ("ag_news", "dbpedia_14", "trec"),
    "summarisation": ("cnn_dailymail", "gigaword", "multi_news", "samsum", "xsum"),
    "structure to text": ("common_gen", "wiki_bio"),
    "extractive questions": ("adversarial_qa", "duorc", "quoref", "ropes"),
    "multiple choice": (
        "cos_e",
        "cosmos_qa",
        "dream",
        "qasc",
        "quail",
        "quarel",
        "quartz",
        "sciq",
        "social_i_qa",
        "wiki_hop",
        "wiqa",
    ),
    "closed-book questions": ("kilt_tasks", "wiki_qa"),
}
"""The families of upstream tasks, and the data sets in each, by the beginning of their names."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, help="decoder-only models or adapters, by folder")
    parser.add_argument("--sentence_encoders", nargs="*", default=[])
    parser.add_argument("--poolings", nargs="*", default=["mean", "weighted_mean"])
    parser.add_argument("--train_files", nargs="+", required=True)
    parser.add_argument("--held_out_files", nargs="+", required=True)
    parser.add_argument("--columns", nargs="*", default=[])
    parser.add_argument("--train_examples", type=int, default=60, help="of each task")
    parser.add_argument("--held_out_examples", type=int, default=5, help="of each task")
    parser.add_argument("--max_length", type=int, default=128)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/encoders.json"))
    args = parser.parse_args()
    if reason := missing(args):
        print(f"Skipped: {reason}")
        return
    transformers.utils.logging.disable_progress_bar()
    columns = named_values("--columns", args.columns, parser.error)
    train = drawn(args.train_files, columns, args.train_examples)
    held_out = drawn(args.held_out_files, columns, args.held_out_examples)
    print(f"{len(train)} examples, {len(held_out)} held-out inputs of {len(set(held_out['task']))} tasks", flush=True)
    found: dict[str, dict[str, Any]] = {}
    for names, encoder in encoders(args):
        start = time.process_time()
        # Each encoder's vectors stand side by side.
        found_vectors = np.split(encoder.encode([*train["input"], *held_out["input"]]), len(names), axis=1)
        seconds = time.process_time() - start
        for name, vectors in zip(names, found_vectors, strict=True):
            for measure, made in (("L2", vectors), ("cosine", normalised(vectors))):
                of_one = shares(made[: len(train)], made[len(train) :], train["task"][:], held_out["task"][:], args.k)
                found[f"{name}, {measure}"] = of_one | {"seconds": round(seconds, 1)}
        print(table(found), flush=True)
    write_json(
        args.output, {"settings": settings(args), "examples": len(train), "inputs": len(held_out), "found": found}
    )


def missing(args: argparse.Namespace) -> str | None:
    """What is not here, of what was asked for."""
    for pattern in [*args.models, *args.sentence_encoders, *args.train_files, *args.held_out_files]:
        if not glob.glob(pattern):
            return f"no file or folder {pattern} is here."
    return None


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What a result depends on, without the places of files."""
    kept = ("poolings", "train_examples", "held_out_examples", "max_length", "dtype", "k")
    return {name: getattr(args, name) for name in kept}


def drawn(files: list[str], columns: dict[str, str], number: int) -> Dataset:
    """So many examples of each task, always the same ones."""
    by_task = examples_by_task(load_examples(files, columns=columns), max_examples_per_task=number)
    return concatenate_datasets(list(by_task.values()))


def encoders(args: argparse.Namespace) -> Iterator[tuple[list[str], Encoder]]:
    """The encoders with the names of what they give, sentence encoders first, for they are fast."""
    for path in args.sentence_encoders:
        yield [Path(path).name], SentenceEncoder.from_pretrained(path, max_length=args.max_length)
    for path in args.models if args.poolings else ():
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = load_upstream_model(path, dtype=getattr(torch, args.dtype))
        names = [f"{Path(path).name}, {pooling}" for pooling in args.poolings]
        yield names, AllPoolings(model, tokenizer, args.max_length, args.poolings)


class AllPoolings(MeanPooledEncoder):
    """The model's own states pooled in several ways, side by side, from one pass."""

    def __init__(self, model: Any, tokenizer: Any, max_length: int, poolings: list[str]) -> None:
        super().__init__(model, tokenizer, max_length=max_length)
        self.poolings = poolings

    def _pooled(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        made = []
        for pooling in self.poolings:
            self.pooling = pooling
            made.append(super()._pooled(hidden, weights))
        return torch.cat(made, dim=1)


def normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def family_of(task: str) -> tuple[str, str]:
    """The family of a task, and its data set."""
    for family, names in FAMILIES.items():
        for name in names:
            if task.startswith(name):
                return family, name
    return task, task


def shares(vectors: np.ndarray, queries: np.ndarray, tasks: list[str], asked: list[str], k: int) -> dict[str, Any]:
    """For each task, the share in percent of its inputs' nearest that are of the task, and, it being left out, of its family."""
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    _, order = index.search(np.ascontiguousarray(queries), len(vectors))
    families = np.array([family_of(task)[0] for task in tasks])
    data_sets = np.array([family_of(task)[1] for task in tasks])
    own: dict[str, list[float]] = {}
    kin: dict[str, list[float]] = {}
    chance: dict[str, float] = {}
    for task, ranked in zip(asked, order, strict=True):
        own.setdefault(task, []).append(100 * float(np.mean(np.array(tasks)[ranked[:k]] == task)))
        family, data_set = family_of(task)
        others = ranked[data_sets[ranked] != data_set]
        share = 100 * float(np.mean(families[others] == family))
        if share > 0:
            chance[task] = round(share, 2)
            kin.setdefault(task, []).append(100 * float(np.mean(families[others[:k]] == family)))
    return {
        "own task": {task: round(float(np.mean(values)), 2) for task, values in own.items()},
        "family": {task: round(float(np.mean(values)), 2) for task, values in kin.items()},
        "chance": chance,
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """All encoders, and how far each is from the first of them."""
    rows, first = [], next(iter(found.values()))
    for name, of_one in found.items():
        difference = {task: of_one["family"][task] - first["family"][task] for task in first["family"]}
        rows.append([name, *(in_words(of_one[what]) for what in ("own task", "family")), in_words(difference)])
        rows[-1].append(f"{of_one['seconds']:.0f}")
    rows.append(["chance", "", f"{np.mean([*first['chance'].values()]):.1f}", "", ""])
    return format_table(["encoder", "own task", "family", "family, less the first", "seconds"], rows)


def in_words(by_task: dict[str, float], draws: int = 2000) -> str:
    """A mean over tasks, and its interval."""
    values = np.array([*by_task.values()])
    picked = np.random.default_rng(0).integers(len(values), size=(draws, len(values)))
    found = interval_of(float(values.mean()), values[picked].mean(axis=1))
    return f"{found.mean:.1f} ({found.low:.1f} to {found.high:.1f})"


if __name__ == "__main__":
    main()
