"""An evaluation on two tiny tasks, for the tests of one process and of several."""

import os

import numpy as np
from datasets import Dataset

from recross_hf import (
    DenseRetriever,
    Method,
    RandomRetriever,
    ReCrossPipeline,
    Reranker,
    TargetTask,
    load_examples,
    load_queries,
)

ADAPTATION = {
    "num_retrieved": 8,
    "num_train_epochs": 1,
    "learning_rate": 1e-3,
    "max_target_length": 4,
    "use_cpu": True,
}
LOG = "RECROSS_TEST_LOG"


class ByLength(Reranker):
    """A reranker by the length of candidates, which counts what it is asked."""

    asked = 0

    def rank(self, queries, candidates):
        self.asked += len(candidates)
        return np.array([float(len(text)) for text in candidates])


class LoggedRetriever(DenseRetriever):
    """Writes a line whenever it retrieves: which process, for which inputs."""

    def rank(self, inputs, num_retrieved):
        if LOG in os.environ:
            with open(os.environ[LOG], "a") as log:
                log.write(f"{os.getpid()} {inputs[0]}\n")
        return super().rank(inputs, num_retrieved)


def task(name: str, word: str, num_sets: int = 2) -> TargetTask:
    rows = [
        {
            "id": f"{name}|test|plain|#{number // 2}",
            "template": "plain",
            "input": f"Is the {word} good? (No. {number})",
            "references": [("yes", "no")[number % 2]],
        }
        for number in range(8)
    ]
    test = load_examples(
        Dataset.from_list([row | {"id": f"{row['id']}{number % 2}"} for number, row in enumerate(rows)])
    )
    sets = [load_queries([f"Is the {word} fine? ({number}, {row})" for row in range(4)]) for number in range(num_sets)]
    return TargetTask(name, test, sets)


def tasks() -> list[TargetTask]:
    return [task("film", "film"), task("book", "book")]


def methods(pipeline: ReCrossPipeline) -> list[Method]:
    return [
        Method("none"),
        Method("random", lambda seed: RandomRetriever(pipeline.index.dataset, seed=seed)),
        Method("dense", LoggedRetriever(pipeline.index), num_queries=3),
    ]
