"""Methods: what they are made of and what tells them apart."""

import numpy as np
import pytest
import tiny
from evaluation_cases import ByLength
from peft import LoraConfig

from recross_hf import (
    BM25Retriever,
    DenseRetriever,
    Method,
    MixedRetriever,
    RandomRetriever,
    ReCrossPipeline,
    SIFTRetriever,
    UpstreamIndex,
    paper_methods,
)
from recross_hf.evaluation.methods import ablations, build_index_once, build_weighted_index_once
from recross_hf.reranking.reranker import RememberingReranker
from recross_hf.retrieval.aggregation import round_robin
from recross_hf.retrieval.vector_shards import IndexMismatchError


@pytest.fixture(scope="module")
def pipeline(bart, tokenizer, index):
    return ReCrossPipeline(bart, tokenizer, index, reranker=ByLength())


def test_the_model_as_it_is_retrieves_nothing():
    assert not Method("none").draws
    with pytest.raises(ValueError, match="Method none: expected a retriever, found none"):
        Method("none").retriever_for(0)


def test_the_papers_methods(pipeline, examples, tmp_path):
    sbert = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path)
    names = (
        "none",
        "random",
        "bm25",
        "sbert",
        "dense",
        "recross",
        "dense_by_task",
        "sbert_by_task",
        "recross_by_task",
    )
    by_name = {method.name: method for method in paper_methods(pipeline, names, sbert_index=sbert, num_queries=4)}
    assert tuple(by_name) == names
    assert by_name["none"].retriever is None
    assert isinstance(by_name["random"].retriever_for(7), RandomRetriever)
    assert by_name["random"].retriever_for(7).seed == 7
    assert [name for name, method in by_name.items() if method.draws] == ["random"]
    assert isinstance(by_name["bm25"].retriever, BM25Retriever)
    assert by_name["sbert"].retriever.index is sbert
    assert isinstance(by_name["dense"].retriever, DenseRetriever)
    assert by_name["dense_by_task"].retriever is by_name["dense"].retriever
    assert by_name["dense"].settings == {"select_by": "example"}
    assert by_name["recross"].settings == {"select_by": "example", "upsampling_ratio": 2.0}
    assert by_name["recross_by_task"].settings == {"select_by": "task", "upsampling_ratio": 2.0}
    with_reranker = {name for name, method in by_name.items() if method.reranker is not None}
    assert with_reranker == {"recross", "recross_by_task"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densest", "Expected methods among none, random, bm25, sbert, dense, recross, rds, .*, found 'densest'"),
        ("random_by_task", "found 'random_by_task'"),
        ("sbert", "Expected an index by another encoder for the method sbert, found no `sbert_index`"),
        ("recross", "Expected a pipeline with a reranker for the method recross, found one without"),
        ("sift_by_task", "found 'sift_by_task'. All but none, random, rds, sift, .* go with `_by_task`"),
        (
            "rds",
            "Expected an index of the model's own vectors with the pooling weighted_mean for the method rds, found none",
        ),
    ],
)
def test_what_is_no_method_is_said(name, message, bart, tokenizer, index):
    with pytest.raises(ValueError, match=message):
        paper_methods(ReCrossPipeline(bart, tokenizer, index), [name])


def test_methods_of_other_papers(pipeline, bart, tokenizer, examples, tmp_path):
    weighted = build_weighted_index_once(pipeline, tmp_path / "weighted")
    names = ("rds", "sift", "dense_replay", "in_context", "in_context_per_task", "mine", "mine_by_task")
    found = paper_methods(
        pipeline, names, indexes={"rds": weighted, "mine": weighted}, num_queries=4, num_in_context=3
    )
    by_name = {method.name: method for method in found}
    assert tuple(by_name) == names
    rds, sift, replay, shown, shown_per_task, mine, mine_by_task = found
    assert (rds.retriever.index, rds.retriever.aggregation) == (weighted, round_robin)
    assert isinstance(sift.retriever, SIFTRetriever) and sift.retriever.index is pipeline.index
    assert replay.draws and isinstance(replay.retriever_for(7), MixedRetriever)
    assert (replay.retriever_for(7).seed, replay.retriever_for(7).share) == (7, 0.5)
    assert [method.in_context for method in found] == [None, None, None, 3, 3, None, None]
    assert (shown.in_context_per, shown.is_shared, shown.trains) == ("input", True, False)
    assert (shown_per_task.in_context_per, shown_per_task.is_shared, shown_per_task.num_queries) == ("task", False, 4)
    assert mine.retriever is mine_by_task.retriever and mine.retriever.index is weighted
    own = ReCrossPipeline(bart, tokenizer, weighted)
    assert paper_methods(own, ["rds"])[0].retriever.index is weighted


def test_the_index_for_rds_compares_by_cosine_and_weighs_later_tokens_more(pipeline, queries, tmp_path):
    index = build_weighted_index_once(pipeline, tmp_path / "weighted")
    again = build_weighted_index_once(pipeline, tmp_path / "weighted")
    assert index.encoder.pooling == again.encoder.pooling == "weighted_mean"
    vectors = [index.encoder.encode(texts) for texts in (queries, index.dataset["input"][:])]
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in vectors]
    hits = DenseRetriever(again).nearest(queries, 5)
    expected = np.sort(2 - 2 * unit[0] @ unit[1].T, axis=1)[:, :5]
    assert hits.distances == pytest.approx(expected, abs=1e-5)


def test_a_method_that_makes_no_sense_is_refused(index):
    with pytest.raises(ValueError, match="Expected a method with a name"):
        Method(" ")
    with pytest.raises(ValueError, match="Method x: expected at least one query, found num_queries=0"):
        Method("x", DenseRetriever(index), num_queries=0)
    with pytest.raises(
        ValueError, match="Method x: expected a retriever beside a reranker, settings or a `peft_config`"
    ):
        Method("x", settings={"seed": 1})


def test_ablations_vary_one_thing_and_name_their_family(pipeline):
    recross, dense = paper_methods(pipeline, ["recross", "dense"])
    found = {method.name: method for method in ablations(recross)}
    assert list(found) == [
        *("recross |Q|=1", "recross |Q|=8", "recross |Q|=32", "recross |R|=256", "recross |R|=1024"),
        *("recross mu=3", "recross mu=4"),
    ]
    assert {method.family for method in found.values()} == {"recross"}
    assert found["recross |Q|=8"].num_queries == 8
    assert found["recross |R|=256"].settings == {**recross.settings, "num_retrieved": 256}
    assert found["recross mu=3"].settings == {**recross.settings, "upsampling_ratio": 3}
    assert len(ablations(dense)) == 5  # without mu


def test_what_trains_nothing_has_no_ablations(pipeline):
    for method in paper_methods(pipeline, ["none", "in_context"]):
        with pytest.raises(ValueError, match=f"Expected a method that trains, found {method.name}"):
            ablations(method)


def test_identity_tells_methods_apart(pipeline, examples):
    recross, dense, random = paper_methods(pipeline, ["recross", "dense", "random"])
    lora = Method("lora", dense.retriever, peft_config=LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules={"b", "a"}))
    assert dense.identity(1) == dense.identity(2)
    assert random.identity(1) != random.identity(2)
    assert lora.identity(0)["peft_config"]["target_modules"] == ["a", "b"]
    assert recross.identity(0)["reranker"] == {"class": "ByLength"}
    others = [
        method.identity(0)
        for method in (recross, dense, random, lora, Method("fewer", dense.retriever, num_queries=3))
    ]
    assert all(one != other for place, one in enumerate(others) for other in others[:place])


def test_a_reranker_that_remembers_scores_each_candidate_of_a_query_set_once(examples):
    reranker = ByLength()
    remembering = RememberingReranker(reranker)
    assert remembering.identity() == reranker.identity() == {"class": "ByLength"}
    for rows, asked in ((range(4), 4), (range(8), 8), (range(2, 6), 8)):
        candidates = examples.select(rows)
        found = remembering.rerank(["q"], candidates, 3)
        assert found["id"][:] == ByLength().rerank(["q"], candidates, 3)["id"][:]
        assert reranker.asked == asked
    remembering.rerank(["another"], examples.select(range(4)), 3)
    assert reranker.asked == 12


def test_an_index_by_another_encoder_is_built_once(examples, tmp_path):
    encoder = tiny.HashEncoder()
    built = build_index_once(examples, encoder, tmp_path / "sbert")
    encoded = len(encoder.encoded)
    opened = build_index_once(examples, encoder, tmp_path / "sbert")
    assert len(built) == len(opened) == 48
    assert len(encoder.encoded) - encoded < 10  # to see that it is the same encoder
    with pytest.raises(
        IndexMismatchError, match=r"Expected an index of the 9 upstream examples in .*, found one of 48 others"
    ):
        build_index_once(examples.select(range(9)), encoder, tmp_path / "sbert")
    with pytest.raises(
        IndexMismatchError, match=r"Expected an index of the kind L2norm,Flat in .*, found Flat, which"
    ):
        build_index_once(examples, encoder, tmp_path / "sbert", factory="L2norm,Flat")
