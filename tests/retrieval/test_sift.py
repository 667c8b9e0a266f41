"""SIFT: greedy choices by the posterior variance, which a matrix inverse gives as well."""

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from recross_hf import DenseRetriever, SIFTRetriever, UpstreamIndex
from recross_hf.retrieval.sift import least_variance


def posterior_variance(candidates, queries, taken, noise):
    """The sum over queries of the variance given the taken candidates, by the inverse of their kernel matrix."""
    seen = candidates[taken]
    kernel = seen @ seen.T + noise * np.eye(len(seen))
    across = queries @ seen.T
    return (queries**2).sum() - np.trace(across @ np.linalg.inv(kernel) @ across.T)


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(2, 9), st.booleans(), st.sampled_from([0.01, 0.3]))
def test_each_choice_lowers_the_posterior_variance_the_most(seed, num_queries, num_candidates, distinct, noise):
    random = np.random.default_rng(seed)
    candidates, queries = random.normal(size=(num_candidates, 5)), random.normal(size=(num_queries, 5))
    candidates /= np.linalg.norm(candidates, axis=1, keepdims=True)
    taken, of_query = least_variance(candidates, queries, 6, noise=noise, distinct=distinct)
    assert len(taken) == len(of_query) == (min(6, num_candidates) if distinct else 6)
    for step, chosen in enumerate(taken):
        before = taken[:step].tolist()
        free = [row for row in range(num_candidates) if not distinct or row not in before]
        found = {row: posterior_variance(candidates, queries, [*before, row], noise) for row in free}
        assert found[chosen] == pytest.approx(min(found.values()), abs=1e-8)
        changes = [
            posterior_variance(candidates, queries[[q]], before, noise)
            - posterior_variance(candidates, queries[[q]], [*before, chosen], noise)
            for q in range(num_queries)
        ]
        assert changes[of_query[step]] == pytest.approx(max(changes), abs=1e-8)


def test_a_copy_of_what_was_taken_is_passed_over_for_what_says_more():
    near, copy, other = [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.6, 0.8, 0.0]
    query = np.array([[0.9, 0.436, 0.0]])
    candidates = np.array([near, copy, other])
    assert np.argsort(-(candidates @ query[0]), kind="stable")[:2].tolist() == [0, 1]
    assert set(least_variance(candidates, query, 2, noise=0.01)[0].tolist()) == {0, 2}


def test_an_example_may_be_taken_again_unless_they_are_to_be_distinct():
    candidates, query = np.eye(3)[:2], np.eye(3)[:1]
    assert least_variance(candidates, query, 3, noise=0.5)[0].tolist() == [0, 0, 0]
    assert least_variance(candidates, query, 3, noise=0.5, distinct=True)[0].tolist() == [0, 1]


def test_examples_come_with_the_input_that_they_tell_the_most_about(index, queries):
    retriever = SIFTRetriever(index, exclude_tasks=["sum"])
    found = retriever.retrieve(queries, 10)
    assert len(found) == 10 and "sum" not in found["task"][:]
    vectors = retriever.encode(queries)
    stored = index.encoder.encode(found["input"][:])
    unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (vectors, stored)]
    distances = ((unit[0][found["query"][:]] - unit[1]) ** 2).sum(axis=1)
    assert found["distance"][:] == pytest.approx(distances, abs=1e-5)
    # The first lowers the variance the most, which is next to being the nearest to all.
    assert found["id"][0] == index.dataset["id"][int(np.argmax(_allowed_gains(index, unit[0])))]


def _allowed_gains(index, queries):
    stored = index.encoder.encode(index.dataset["input"][:])
    stored = stored / np.linalg.norm(stored, axis=1, keepdims=True)
    gains = ((queries @ stored.T) ** 2).sum(axis=0)
    gains[np.array(index.dataset["task"][:]) == "sum"] = -1
    return gains


def test_distinct_examples_are_found_beyond_the_usual_candidates(index, queries):
    found = SIFTRetriever(index, num_candidates=2, distinct=True).retrieve(queries, 30)
    assert len(set(found["id"][:])) == 30
    few = SIFTRetriever(index, num_candidates=2).retrieve(queries[:1], 30)
    assert len(set(few["id"][:])) == 2


def test_each_input_has_its_own(index, queries):
    retriever = SIFTRetriever(index, distinct=True)
    alone = [retriever.retrieve([text], 3)["id"][:] for text in queries]
    hits = retriever.nearest(queries, 3)
    assert [index.dataset.select(rows)["id"][:] for rows in hits.positions] == alone


@pytest.mark.parametrize("factory", ["Flat", "L2norm,Flat", "SQ8", "HNSW8"])
def test_kinds_of_index_that_give_their_vectors(factory, examples, queries, tmp_path):
    index = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path, factory=factory)
    found = SIFTRetriever(index).retrieve(queries, 5)
    flat = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path / "flat")
    assert found["id"][:] == SIFTRetriever(flat).retrieve(queries, 5)["id"][:]


def test_an_index_that_does_not_give_its_vectors_is_refused(examples, queries, tmp_path):
    index = UpstreamIndex.build(examples, tiny.HashEncoder(), tmp_path, factory="IVF2,Flat")
    with pytest.raises(ValueError, match=r"Expected an index that gives its vectors, found IndexIVFFlat"):
        SIFTRetriever(index).retrieve(queries, 5)


def test_settings_tell_one_from_another(index):
    found = [retriever.identity() for retriever in (SIFTRetriever(index), SIFTRetriever(index, noise=0.1))]
    assert found[0] != found[1] and found[0] != DenseRetriever(index).identity()
    with pytest.raises(ValueError, match="`num_candidates` of at least 1 and `noise` above 0, found 200 and 0"):
        SIFTRetriever(index, noise=0)
