from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recross_hf.retrieval.aggregation import Hits, interleave, interleave_distinct, mean_distance, round_robin


def search_in(distances: np.ndarray):
    """An exact search in a matrix of distances [num_queries, num_examples]; infinite ones are not found."""

    def search(k: int) -> Hits:
        order = np.argsort(distances, axis=1, kind="stable")
        order = np.pad(order, ((0, 0), (0, max(0, k - order.shape[1]))), constant_values=-1)[:, :k]
        found = np.where(order < 0, np.inf, np.take_along_axis(distances, order, axis=1))
        return Hits(np.where(np.isinf(found), -1, order), found)

    return search


@st.composite
def matrices(draw, *, all_found: bool = False):
    queries, examples = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    values = draw(st.permutations(range(queries * examples)))
    distances = np.array(values, dtype=float).reshape(queries, examples)
    if not all_found:
        for query in range(queries):
            distances[query, examples - draw(st.integers(0, examples)) :] = np.inf
    return distances


def neighbours(distances: np.ndarray, query: int) -> list[int]:
    pairs = sorted((value, row) for row, value in enumerate(distances[query]) if np.isfinite(value))
    return [row for _, row in pairs]


@given(matrices(), st.integers(1, 30))
def test_interleave_takes_rank_by_rank_from_every_query_alike(distances, wanted):
    num_queries = len(distances)
    ranking = interleave(search_in(distances), num_queries, wanted)
    depth = -(-wanted // num_queries)
    rank_query = [
        (rank, query) for query in range(num_queries) for rank in range(min(depth, len(neighbours(distances, query))))
    ]
    expected = sorted(rank_query)[:wanted]
    assert ranking.queries.tolist() == [query for _, query in expected]
    assert ranking.positions.tolist() == [neighbours(distances, query)[rank] for rank, query in expected]
    assert ranking.distances.tolist() == [distances[q, p] for p, q in zip(*ranking[:2], strict=True)]


@given(matrices(all_found=True), st.integers(1, 30))
def test_interleave_is_cut_to_the_number_wanted_and_fair(distances, wanted):
    num_queries, num_examples = distances.shape
    ranking = interleave(search_in(distances), num_queries, wanted)
    assert len(ranking.positions) == min(wanted, num_queries * min(num_examples, -(-wanted // num_queries)))
    counts = [Counter(ranking.queries.tolist())[query] for query in range(num_queries)]
    assert max(counts) - min(counts) <= 1


def test_interleave_by_hand():
    distances = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 0.5, 6.0, 0.7]])
    ranking = interleave(search_in(distances), 2, 3)  # |R| = 3 is not a multiple of |Q| = 2
    assert ranking.positions.tolist() == [0, 1, 1]
    assert ranking.queries.tolist() == [0, 1, 0]
    assert ranking.distances.tolist() == [1.0, 0.5, 2.0]


@given(matrices(), st.integers(1, 30))
def test_interleave_distinct_is_the_undisturbed_interleaving_without_repetitions(distances, wanted):
    num_queries = len(distances)
    ranking = interleave_distinct(search_in(distances), num_queries, wanted)
    everything = sorted(
        (rank, query, row) for query in range(num_queries) for rank, row in enumerate(neighbours(distances, query))
    )
    seen, expected = set(), []
    for _, query, row in everything:
        if row not in seen:
            seen.add(row)
            expected.append((row, query, distances[query, row]))
    assert list(zip(*(column.tolist() for column in ranking), strict=True)) == expected[:wanted]


@given(matrices(all_found=True), st.data())
def test_mean_distance_is_exact_where_every_query_sees_all_examples(distances, data):
    num_queries, num_examples = distances.shape
    wanted = num_examples + data.draw(st.integers(0, 3))
    ranking = mean_distance(search_in(distances), num_queries, wanted)
    means = {row: sum(distances[:, row].tolist()) / num_queries for row in range(num_examples)}
    assert ranking.positions.tolist() == sorted(means, key=lambda row: (means[row], row))
    np.testing.assert_allclose(ranking.distances, sorted(means.values()))
    assert set(ranking.queries.tolist()) == {-1}


@given(matrices(), st.integers(1, 8))
def test_mean_distance_counts_the_last_hit_of_a_query_that_does_not_see_an_example(distances, wanted):
    tops = [neighbours(distances, query)[:wanted] for query in range(len(distances))]
    assume(all(tops))  # a query that finds nothing has no last hit
    means = {}
    for row in {row for top in tops for row in top}:
        lower_bounds = [distances[query, row if row in top else top[-1]] for query, top in enumerate(tops)]
        means[row] = sum(lower_bounds) / len(lower_bounds)
    ranking = mean_distance(search_in(distances), len(distances), wanted)
    assert len(ranking.positions) == min(wanted, len(means))
    np.testing.assert_allclose(ranking.distances, sorted(means.values())[:wanted])
    np.testing.assert_allclose([means[row] for row in ranking.positions.tolist()], ranking.distances)


@pytest.mark.parametrize("aggregation", [interleave, interleave_distinct, mean_distance])
@given(distances=matrices(all_found=True), wanted=st.integers(1, 15))
def test_one_query_gives_its_nearest_examples(aggregation, distances, wanted):
    distances = distances[:1]
    ranking = aggregation(search_in(distances), 1, wanted)
    assert ranking.positions.tolist() == neighbours(distances, 0)[:wanted]
    assert np.all(np.diff(ranking.distances) > 0)


@pytest.mark.parametrize("aggregation", [interleave, interleave_distinct, mean_distance])
def test_nothing_found_is_an_empty_ranking(aggregation):
    ranking = aggregation(search_in(np.full((2, 3), np.inf)), 2, 4)
    assert [len(column) for column in ranking] == [0, 0, 0]


def test_interleave_keeps_repetitions_and_distinct_searches_deeper():
    distances = np.array([[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]])
    assert interleave(search_in(distances), 2, 4).positions.tolist() == [0, 0, 1, 1]
    assert interleave_distinct(search_in(distances), 2, 3).positions.tolist() == [0, 1, 2]


@given(matrices(), st.integers(1, 12))
def test_in_a_round_robin_each_query_takes_its_nearest_that_is_free(distances, num_retrieved):
    ranking = round_robin(search_in(distances), len(distances), num_retrieved)
    taken, queries = [], []
    while len(taken) < num_retrieved:
        before = len(taken)
        for query, row in enumerate(distances):
            free = [place for place in range(len(row)) if place not in taken and np.isfinite(row[place])]
            if free and len(taken) < num_retrieved:
                taken.append(min(free, key=lambda place: row[place]))
                queries.append(query)
        if len(taken) == before:
            break
    assert ranking.positions.tolist() == taken
    assert ranking.queries.tolist() == queries
    assert ranking.distances.tolist() == [distances[query, row] for query, row in zip(queries, taken, strict=True)]


def test_a_round_robin_gives_a_query_whose_nearest_is_taken_its_next():
    distances = np.array([[0.0, 1.0, 2.0, 9.0], [0.0, 3.0, 2.0, 1.0]])
    assert round_robin(search_in(distances), 2, 3).positions.tolist() == [0, 3, 1]
    assert interleave_distinct(search_in(distances), 2, 3).positions.tolist() == [0, 1, 3]
