import numpy as np
import pytest
from datasets import Dataset

from recross_hf import AdaptationArguments, DenseRetriever, Reranker, RetrievalAugmentedAdapter
from recross_hf.reranking.reranker import candidate_texts


class ScoresByName(Reranker):
    """Scores each candidate by a table, and notes what it was asked."""

    def __init__(self, scores, include_answers=False):
        self.scores, self.include_answers, self.asked = scores, include_answers, []

    def rank(self, queries, candidates):
        self.asked.append((queries, candidates))
        return np.array([self.scores[candidate] for candidate in candidates])


class Returns(Reranker):
    """Scores that a function of their number gives."""

    def __init__(self, scores):
        self.scores = scores

    def rank(self, queries, candidates):
        return self.scores(len(candidates))


def retrieved(*inputs):
    columns = {"input": list(inputs), "references": [[f"{text}1", f"{text}2"] for text in inputs]}
    return Dataset.from_dict(columns | {"rank": list(range(len(inputs)))})


def test_the_best_come_first_and_ties_keep_their_order():
    reranker = ScoresByName({"a": 1.0, "b": 3.0, "c": 1.0, "d": -2.0})
    kept = reranker.rerank(("q", "r"), retrieved("a", "b", "c", "d"), 3)
    assert kept["input"][:] == ["b", "a", "c"]
    assert kept["references"][:] == [["b1", "b2"], ["a1", "a2"], ["c1", "c2"]]
    assert kept["rank"][:] == [0, 1, 2]
    assert kept["score"][:] == [3.0, 1.0, 1.0]
    assert reranker.asked == [(["q", "r"], ["a", "b", "c", "d"])]


def test_what_was_reranked_can_be_reranked():
    kept = ScoresByName({"a": 1.0, "b": 2.0, "c": 3.0}).rerank(["q"], retrieved("a", "b", "c"), 2)
    kept = ScoresByName({"b": 5.0, "c": 4.0}).rerank(["q"], kept, 2)
    assert kept["input"][:] == ["b", "c"]
    assert (kept["rank"][:], kept["score"][:]) == ([0, 1], [5.0, 4.0])


def test_candidates_carry_their_first_reference_if_asked_for():
    assert candidate_texts(retrieved("a", "b"), False) == ["a", "b"]
    assert candidate_texts(retrieved("a", "b"), True) == ["a a1", "b b1"]
    reranker = ScoresByName({"a a1": 1.0, "b b1": 2.0}, include_answers=True)
    for rerank in (reranker.rerank, reranker.rerank_in_processes):
        assert rerank(["q"], retrieved("a", "b"), 1)["input"][:] == ["b"]


@pytest.mark.parametrize(
    "scores, match",
    [
        (
            lambda n: np.zeros((n, 2)),
            r"Returns.rank to give 2 finite scores, one a candidate, found an array \[2, 2\]\.",
        ),
        (lambda n: np.zeros(n + 1), r"found an array \[3\]\."),
        (lambda n: np.full(n, np.nan), r"found an array \[2\] with NaN or infinity\."),
        (lambda n: np.array([0, np.inf]), r"found an array \[2\] with NaN or infinity\."),
    ],
)
def test_a_reranker_must_score_every_candidate(scores, match):
    for rerank in (Returns(scores).rerank, Returns(scores).rerank_in_processes):
        with pytest.raises(ValueError, match=match):
            rerank(["q"], retrieved("a", "b"), 1)


def test_a_reranker_writes_rank():
    with pytest.raises(TypeError, match="rank"):
        Reranker()


def test_a_reranker_is_known_by_its_class_and_is_not_saved():
    reranker = Returns(np.arange)
    assert reranker.identity() == {"class": "Returns"}
    assert not reranker.can_be_saved


@pytest.mark.parametrize("number", [1, 700])
def test_one_process_ranks_all_candidates_in_one_call(number):
    names = [f"text {place}" for place in range(number)]
    scores = np.random.default_rng(0).integers(0, 50, number).astype(float)
    reranker = ScoresByName(dict(zip(names, scores, strict=True)))
    whole = reranker.rerank(["q"], retrieved(*names), 300)
    assert whole["input"][:] == sorted(names, key=lambda name: -reranker.scores[name])[:300]
    assert reranker.rerank_in_processes(["q"], retrieved(*names), 300).to_dict() == whole.to_dict()
    assert [len(candidates) for _, candidates in reranker.asked] == [number, number]


@pytest.fixture
def make_adapter(bart, tokenizer, index, queries, tmp_path):
    def make(reranker):
        args = AdaptationArguments(output_dir=tmp_path, num_retrieved=6, upsampling_ratio=2.9, use_cpu=True)
        return RetrievalAugmentedAdapter(
            bart,
            args,
            retriever=DenseRetriever(index),
            reranker=reranker,
            query_dataset=queries,
            processing_class=tokenizer,
        )

    return make


def test_the_adapter_trains_on_what_the_reranker_keeps(make_adapter, index, queries):
    adapter = make_adapter(Returns(np.arange))
    kept = adapter.retrieve()
    assert kept is adapter.retrieved
    assert kept["id"][:] == DenseRetriever(index).retrieve(queries, 18)["id"][:][:-7:-1]
    assert kept["score"][:] == [17, 16, 15, 14, 13, 12]
    assert set(adapter.seconds) == {"retrieve", "rerank"}


def test_the_adapter_takes_rerankers_alone(make_adapter):
    class Almost:
        def rank(self, queries, candidates):
            return np.arange(len(candidates))

    match = "Expected `reranker` to be a Reranker, found Almost. Subclass `Reranker` and write `rank`, or load one"
    with pytest.raises(TypeError, match=match):
        make_adapter(Almost())
