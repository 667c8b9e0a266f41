import numpy as np
import pytest
from datasets import Dataset

from recross_hf import AdaptationArguments, DenseRetriever, RetrievalAugmentedAdapter
from recross_hf.reranker import rerank


class ScoresByName:
    """Scores each candidate by a table."""

    def __init__(self, scores):
        self.scores = scores

    def rank(self, queries, candidates):
        return np.array([self.scores[candidate] for candidate in candidates])


def retrieved(*inputs):
    return Dataset.from_dict({"input": list(inputs), "rank": list(range(len(inputs)))})


def test_the_best_come_first_and_ties_keep_their_order():
    kept = rerank(ScoresByName({"a": 1.0, "b": 3.0, "c": 1.0, "d": -2.0}), ["q"], retrieved("a", "b", "c", "d"), 3)
    assert kept["input"][:] == ["b", "a", "c"]
    assert kept["rank"][:] == [0, 1, 2]
    assert kept["score"][:] == [3.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "scores, match",
    [
        (lambda n: np.zeros((n, 2)), r"2 finite scores, one a candidate, found an array \[2, 2\]"),
        (lambda n: np.full(n, np.nan), "NaN"),
    ],
)
def test_a_reranker_must_score_every_candidate(scores, match):
    class Wrong:
        def rank(self, queries, candidates):
            return scores(len(candidates))

    with pytest.raises(ValueError, match=match):
        rerank(Wrong(), ["q"], retrieved("a", "b"), 1)


def test_the_adapter_trains_on_what_the_reranker_keeps(bart, tokenizer, index, queries, tmp_path):
    asked = []

    class LastFirst:
        def rank(self, queries, candidates):
            asked.append((list(queries), len(candidates)))
            return np.arange(len(candidates))

    args = AdaptationArguments(output_dir=tmp_path, num_retrieved=6, upsampling_ratio=3, use_cpu=True)
    adapter = RetrievalAugmentedAdapter(
        bart,
        args,
        retriever=DenseRetriever(index),
        reranker=LastFirst(),
        query_dataset=queries,
        processing_class=tokenizer,
    )
    kept = adapter.retrieve()
    assert asked == [(list(queries), 18)]
    assert kept["id"][:] == DenseRetriever(index).retrieve(queries, 18)["id"][:][:-7:-1]
