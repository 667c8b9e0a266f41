"""Why choosing single examples by their utility does not pay: not even the utility measured on the target itself does.

    python benchmarks/selection_oracle.py

A diagnosis on the starter, not a method: each candidate's utility (`supervision.utility.by_reversal`) is measured on a hundred labelled examples of
the unseen task, which no user has. The adapted models are scored on the other four hundred. By example, the candidates of
greatest utility are learned from; by task, those of the tasks whose candidates have the greatest mean utility, in the order of
retrieval; the worst, those of least utility. With one query set a task the intervals are over test examples alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import transformers
from tqdm.auto import tqdm

from recross_hf import (
    DenseRetriever,
    ReCrossPipeline,
    Reranker,
    SupervisionArguments,
    load_starter_task,
    starter_tasks,
)
from recross_hf.core.files import write_json
from recross_hf.core.statistics import paired_interval
from recross_hf.core.tables import format_table
from recross_hf.soft_em import exact_match
from recross_hf.supervision.group_trainer import GroupTrainer
from recross_hf.supervision.utility import by_reversal

JUDGING = 100
WAYS = ("dense", "by example", "by task", "worst")


class Oracle(Reranker):
    """Scores that are known beforehand."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def rank(self, queries: list[str], candidates: list[str]) -> np.ndarray:
        return np.array([self.scores[candidate] for candidate in candidates])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--query_sets", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/selection_oracle.json"))
    args = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    pipeline = ReCrossPipeline.from_pretrained()
    right: dict[str, dict[str, list[list[int]]]] = {}
    for task in tqdm(starter_tasks()):
        right[task] = defaultdict(list)
        labelled = load_starter_task(task)[1]
        judging, test = labelled.select(range(JUDGING)), labelled.select(range(JUDGING, len(labelled)))
        for query_set in range(args.query_sets):
            queries = load_starter_task(task, query_set)[0]
            num_candidates = 2 * pipeline.arguments().num_retrieved
            retrieved = DenseRetriever(pipeline.index).retrieve(queries["input"][:], num_candidates)
            first = {text: row for row, text in reversed(list(enumerate(retrieved["input"][:])))}
            candidates = retrieved.select(list(first.values()))
            utilities = judge(pipeline, candidates, judging)
            mean_of = {
                name: np.mean(
                    [value for value, of in zip(utilities, candidates["task"][:], strict=True) if of == name]
                )
                for name in set(candidates["task"][:])
            }
            scores = {
                "by example": utilities,
                "by task": np.array([mean_of[name] for name in candidates["task"][:]]),
                "worst": -utilities,
            }
            for way in WAYS:
                settings = {"rerank": False}
                if way in scores:
                    settings = {"reranker": Oracle(dict(zip(first, scores[way].tolist(), strict=True)))}
                adapted = pipeline.adapt(
                    queries,
                    select_by="example",
                    upsampling_ratio=2.0,
                    seed=query_set,
                    gate="off",
                    disable_tqdm=True,
                    **settings,
                )
                answers = adapted(test["input"][:])
                right[task][way].append(
                    [int(exact_match(*pair)) for pair in zip(answers, test["references"], strict=True)]
                )

    points = {task: {way: 100 * np.array(rows) for way, rows in of.items()} for task, of in right.items()}
    rows = [[task, *(f"{of[way].mean():.1f}" for way in WAYS)] for task, of in points.items()]
    rows.append(["mean", *(f"{np.mean([of[way].mean() for of in points.values()]):.1f}" for way in WAYS)])
    print(format_table(["task", *WAYS], rows))
    summary = {}
    for way in WAYS[1:]:
        interval = paired_interval([of[way] - of["dense"] for of in points.values()])
        summary[f"{way} - dense"] = interval._asdict()
        print(f"{way} - dense: {interval.mean:+.1f} points, 95 % interval [{interval.low:+.1f}, {interval.high:+.1f}]")
    bits = {
        task: {way: ["".join(map(str, row)) for row in rows] for way, rows in of.items()} for task, of in right.items()
    }
    write_json(args.output, {"differences": summary, "correct": bits})


def judge(pipeline: ReCrossPipeline, candidates, labelled) -> np.ndarray:
    """Each candidate's utility for the labelled examples."""
    settings = SupervisionArguments(num_rounds=2, learning_rate=1e-4, per_device_train_batch_size=4)
    with GroupTrainer(pipeline.upstream_model, pipeline.processing_class, settings) as trainer:
        found = by_reversal(
            trainer,
            trainer.tokenize(candidates),
            trainer.tokenize(labelled),
            settings,
            np.random.default_rng(0),
            lambda: None,
        )
    return found.utilities.mean(axis=1)


if __name__ == "__main__":
    main()
