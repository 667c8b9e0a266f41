import copy
import json

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel

from recross_hf import CrossEncoderReranker, DenseRetriever
from recross_hf.reranking.pair_tokenizer import longest_pair
from recross_hf.reranking.reranker import Reranker

KINDS = ["roberta", "bert", "deberta"]
QUERIES = ["Is the review good?", "Add one and three. " * 12, "sky"]
CANDIDATES = ["It was a lovely film.", "ünïcödé ✓", "Which colour has the grass? " * 9, "sky", "abcdef " * 9]


@pytest.fixture(scope="module", params=KINDS)
def any_reranker(request):
    tokenizer = tiny.pair_tokenizer("roberta" if request.param == "roberta" else "bert")
    return CrossEncoderReranker(tiny.cross_encoder(tokenizer, request.param), tokenizer)


@pytest.fixture
def reranker(pair_tokenizer, cross_encoder):
    return CrossEncoderReranker(cross_encoder, pair_tokenizer)


def alone(reranker: CrossEncoderReranker, query: str, candidate: str) -> float:
    """One pair as its tokenizer makes it, without padding."""
    inputs = reranker.processing_class(
        query, candidate, truncation=True, max_length=reranker.max_length, return_tensors="pt"
    )
    with torch.no_grad():
        return reranker.model(**inputs).logits.item()


def scored_pairs(reranker: CrossEncoderReranker) -> list[int]:
    """The pairs of each batch to come."""
    sizes = []
    reranker.model.register_forward_pre_hook(
        lambda model, args, kwargs: sizes.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return sizes


# ---- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token_budget", [1, 150, 100_000])
def test_scores_are_those_of_each_pair_alone(any_reranker, token_budget):
    any_reranker.token_budget = token_budget
    scores = any_reranker.score(QUERIES, CANDIDATES)
    expected = [[alone(any_reranker, query, candidate) for candidate in CANDIDATES] for query in QUERIES]
    assert scores.dtype == np.float32
    assert scores.shape == (3, 5)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.ptp(scores) > 0.1


@given(st.lists(st.sampled_from(QUERIES), min_size=1), st.lists(st.sampled_from(CANDIDATES), min_size=1))
@settings(max_examples=15)
def test_repeated_texts_have_the_scores_of_the_distinct(any_reranker, queries, candidates):
    scores = any_reranker.score(QUERIES, CANDIDATES)
    expected = scores[[QUERIES.index(text) for text in queries]][:, [CANDIDATES.index(text) for text in candidates]]
    np.testing.assert_allclose(any_reranker.score(queries, candidates), expected, atol=1e-5)


def test_distinct_pairs_are_scored_once(pair_tokenizer):
    reranker = CrossEncoderReranker(tiny.cross_encoder(pair_tokenizer), pair_tokenizer)
    sizes = scored_pairs(reranker)
    scores = reranker.score(["a", "b", "a"], ["x", "y", "x", "x"])
    assert sum(sizes) == 4
    assert np.array_equal(scores[0], scores[2])
    assert np.array_equal(scores[:, 0], scores[:, 3])
    assert len(np.unique(scores)) == 4


def test_each_text_is_tokenised_once(reranker, monkeypatch):
    seen = []
    tokenize = reranker.pair_tokenizer.tokenize
    monkeypatch.setattr(reranker.pair_tokenizer, "tokenize", lambda texts: seen.extend(texts) or tokenize(texts))
    reranker.score(["a", "b", "a"], ["x", "y", "x"])
    assert sorted(seen) == ["a", "b", "x", "y"]


def test_batches_hold_so_many_tokens(pair_tokenizer):
    reranker = CrossEncoderReranker(tiny.cross_encoder(pair_tokenizer), pair_tokenizer, token_budget=64)
    sizes = scored_pairs(reranker)
    reranker.score(["a" * 200, "b"], ["c", "d" * 200, "e" * 20])
    assert sizes[:3] == [1, 1, 1]
    assert sum(sizes) == 6


def test_a_candidate_has_the_mean_of_its_scores(reranker):
    ranks = reranker.rank(QUERIES, CANDIDATES)
    assert ranks.shape == (5,)
    np.testing.assert_allclose(ranks, reranker.score(QUERIES, CANDIDATES).mean(axis=0), rtol=1e-6)


def test_scores_can_be_joined_otherwise(pair_tokenizer, cross_encoder):
    best = CrossEncoderReranker(cross_encoder, pair_tokenizer, aggregation=lambda scores: scores.max(axis=0))
    np.testing.assert_allclose(best.rank(QUERIES, CANDIDATES), best.score(QUERIES, CANDIDATES).max(axis=0), atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_dropout_is_off_and_its_flag_put_back(training, pair_tokenizer):
    model = tiny.cross_encoder(pair_tokenizer, dropout=0.5).train(training)
    reranker = CrossEncoderReranker(model, pair_tokenizer)
    np.testing.assert_allclose(reranker.score(QUERIES, CANDIDATES), reranker.score(QUERIES, CANDIDATES), atol=1e-6)
    assert model.training is training


def test_bfloat16_is_near_float32(any_reranker):
    half = CrossEncoderReranker(any_reranker.model, any_reranker.processing_class, autocast_dtype=torch.bfloat16)
    scores, expected = half.score(QUERIES, CANDIDATES), any_reranker.score(QUERIES, CANDIDATES)
    assert scores.dtype == np.float32
    assert 0 < np.abs(scores - expected).max() < 0.2
    off = CrossEncoderReranker(any_reranker.model, any_reranker.processing_class, autocast_dtype=torch.float32)
    np.testing.assert_allclose(off.score(QUERIES, CANDIDATES), expected, atol=1e-5)


def test_it_reranks_what_was_retrieved(reranker, index, queries):
    assert isinstance(reranker, Reranker)
    retrieved = DenseRetriever(index).retrieve(queries, 20)
    kept = reranker.rerank(queries, retrieved, 6)
    ranks = reranker.rank(queries, retrieved["input"][:])
    assert kept["id"][:] == [retrieved["id"][row] for row in np.argsort(-ranks, kind="stable")[:6].tolist()]
    np.testing.assert_allclose(kept["score"][:], np.sort(ranks)[::-1][:6], rtol=1e-6)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "queries, candidates, error, match",
    [
        ("q", ["c"], TypeError, "`queries` to be a list of texts, found one string"),
        (["q"], "c", TypeError, "`candidates` to be a list of texts, found one string"),
        ([], ["c"], ValueError, "at least one text in `queries`, found none"),
        (["q"], [], ValueError, "at least one text in `candidates`, found none"),
    ],
)
def test_both_sides_need_texts(queries, candidates, error, match, reranker):
    with pytest.raises(error, match=match):
        reranker.rank(queries, candidates)


def test_a_model_with_two_labels_is_refused(pair_tokenizer):
    with pytest.raises(
        ValueError, match="Expected a model with one label, found 2 in RobertaForSequenceClassification"
    ):
        CrossEncoderReranker(tiny.cross_encoder(pair_tokenizer, num_labels=2), pair_tokenizer)


def test_a_pair_may_not_be_longer_than_the_model_takes(pair_tokenizer, cross_encoder):
    with pytest.raises(ValueError, match="`max_length` to be at most 64, which this model can take, found 65"):
        CrossEncoderReranker(cross_encoder, pair_tokenizer, max_length=65)
    assert CrossEncoderReranker(cross_encoder, pair_tokenizer, max_length=20).max_length == 20


@pytest.mark.parametrize("kind", KINDS)
def test_the_longest_pair_uses_all_positions_and_no_more(kind):
    tokenizer = tiny.pair_tokenizer("roberta" if kind == "roberta" else "bert")
    tokenizer.model_max_length = int(1e30)
    model = tiny.cross_encoder(tokenizer, kind, positions=40)
    assert longest_pair(model, tokenizer) == 40
    reranker = CrossEncoderReranker(model, tokenizer)
    assert reranker.max_length == 40
    assert np.isfinite(reranker.score(["word " * 99], ["word " * 99])).all()
    if kind != "deberta":  # whose positions are relative
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, 41), 9))


def test_the_default_length_is_512(pair_tokenizer):
    long = copy.deepcopy(pair_tokenizer)
    long.model_max_length = 1000
    assert CrossEncoderReranker(tiny.cross_encoder(long, positions=600), long).max_length == 512


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_saved_reranker_is_the_same(any_reranker, tmp_path):
    any_reranker.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    loaded = CrossEncoderReranker.from_pretrained(tmp_path)
    assert not loaded.model.training
    np.testing.assert_allclose(loaded.score(QUERIES, CANDIDATES), any_reranker.score(QUERIES, CANDIDATES), atol=1e-6)
    assert loaded.identity() == any_reranker.identity()
    assert json.loads(json.dumps(loaded.identity())) == loaded.identity()
    assert set(loaded.identity()) == {"class", "weights", "max_length", "include_answers", "aggregation"}
    assert (loaded.identity()["class"], loaded.identity()["aggregation"]) == ("CrossEncoderReranker", "mean_score")
    assert loaded.can_be_saved


@pytest.mark.parametrize("max_length, include_answers", [(24, True), (550, False)])
def test_settings_are_saved(max_length, include_answers, pair_tokenizer, tmp_path):
    long = copy.deepcopy(pair_tokenizer)
    long.model_max_length = 1000
    model = tiny.cross_encoder(long, positions=600)
    saved = CrossEncoderReranker(model, long, max_length=max_length, include_answers=include_answers)
    saved.save_pretrained(tmp_path)
    loaded = CrossEncoderReranker.from_pretrained(tmp_path)
    assert (loaded.max_length, loaded.include_answers) == (max_length, include_answers)
    np.testing.assert_allclose(loaded.score(QUERIES, CANDIDATES), saved.score(QUERIES, CANDIDATES), atol=1e-6)
    other = CrossEncoderReranker.from_pretrained(tmp_path, max_length=16, include_answers=not include_answers)
    assert (other.max_length, other.include_answers) == (16, not include_answers)


def test_what_scores_depend_on_is_its_identity(pair_tokenizer, reranker):
    changed = copy.deepcopy(reranker.model)
    changed.classifier.out_proj.bias.data += 1
    others = [
        CrossEncoderReranker(changed, pair_tokenizer),
        CrossEncoderReranker(reranker.model, pair_tokenizer, max_length=20),
        CrossEncoderReranker(reranker.model, pair_tokenizer, include_answers=True),
        CrossEncoderReranker(reranker.model, pair_tokenizer, aggregation=np.max),
    ]
    identities = [json.dumps(other.identity()) for other in [reranker, *others]]
    assert len(set(identities)) == 5
    assert CrossEncoderReranker(reranker.model, pair_tokenizer, token_budget=9).identity() == reranker.identity()


def test_an_encoder_that_was_never_trained_to_score_is_refused(pair_tokenizer, cross_encoder, tmp_path):
    AutoModel.from_config(cross_encoder.config).save_pretrained(tmp_path)
    pair_tokenizer.save_pretrained(tmp_path)
    match = (
        r"found a model without weights for classifier\..*its scores would be random. Train one with `train_reranker`"
    )
    with pytest.raises(ValueError, match=match):
        CrossEncoderReranker.from_pretrained(tmp_path)


def test_sentence_transformers_ranks_alike(any_reranker, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    short = CrossEncoderReranker(any_reranker.model, copy.deepcopy(any_reranker.processing_class), max_length=30)
    lengths = [[short.pair_tokenizer.cut(one, two) != (one, two) for one in (4, 90)] for two in (4, 90)]
    assert lengths == [[False, True], [True, True]]
    short.save_pretrained(tmp_path)
    other = sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")
    logits = other.predict([(query, candidate) for query in QUERIES for candidate in CANDIDATES], batch_size=4)
    scores = short.score(QUERIES, CANDIDATES)
    np.testing.assert_allclose(logits.reshape(scores.shape), scores, atol=1e-5)
    means = logits.reshape(scores.shape).mean(axis=0)
    assert np.argsort(-means).tolist() == np.argsort(-short.rank(QUERIES, CANDIDATES)).tolist()


def test_a_tokenizer_without_padding_scores_alike(cross_encoder, pair_tokenizer):
    without = copy.deepcopy(pair_tokenizer)
    without.pad_token = None
    texts = ["a", "a longer text"], ["b", "c and so on"]
    expected = CrossEncoderReranker(cross_encoder, pair_tokenizer).score(*texts)
    np.testing.assert_allclose(CrossEncoderReranker(cross_encoder, without).score(*texts), expected, atol=1e-5)


def test_a_reranker_is_written_to_a_folder_of_the_home_and_to_no_file(reranker, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    reranker.save_pretrained("~/reranker")
    assert (tmp_path / "home" / "reranker" / "model.safetensors").is_file()
    assert not (tmp_path / "~").exists()
    (tmp_path / "taken").write_text("notes")
    with pytest.raises(NotADirectoryError, match="found the file taken"):
        reranker.save_pretrained("taken")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"revision": "v1"}, "`revision` of a repository on the Hub, found 'v1'"),
        ({"device": "gpu"}, "Expected `device` to be one that is here, .* found 'gpu'"),
        ({"dtype": torch.int8}, "Expected `dtype` to be .* found torch.int8"),
    ],
)
def test_a_reranker_is_not_opened_with_what_there_is_not(arguments, message, reranker, tmp_path):
    reranker.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message):
        CrossEncoderReranker.from_pretrained(tmp_path, **arguments)
