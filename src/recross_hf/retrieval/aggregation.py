"""The hits of many queries as one ranking of examples (NumPy alone).

An aggregation is a function of three arguments: a `search` that gives every query's `k` nearest examples for any `k`, the
number of queries |Q|, and |R|, how many examples to return. It asks for the depth it needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Hits(NamedTuple):
    """The `k` nearest examples of each query, nearest first.

    `positions` and `distances` are `[num_queries, k]`; distances fall with relevance. Where there are fewer than `k`
    examples to find, positions are -1 and distances infinite.
    """

    positions: np.ndarray
    distances: np.ndarray

    def filled_up(self, k: int) -> Hits:
        """The same hits with `k` places a query, at least as many as there are: -1 fills the others."""
        missing = ((0, 0), (0, k - self.positions.shape[1]))
        return Hits(
            np.pad(self.positions, missing, constant_values=-1),
            np.pad(self.distances, missing, constant_values=np.inf),
        )


class Ranking(NamedTuple):
    """Examples in the order in which they were retrieved: three arrays of one length.

    `positions` are rows of the upstream data, `queries` the query that brought each (-1: all of them together), `distances`
    fall with relevance.
    """

    positions: np.ndarray
    queries: np.ndarray
    distances: np.ndarray


Search = Callable[[int], Hits]
Aggregation = Callable[[Search, int, int], Ranking]


def interleave(search: Search, num_queries: int, num_retrieved: int) -> Ranking:
    """Every query's top ceil(|R| / |Q|), rank by rank, cut to |R| (paper, section 3.2).

    Duplicates stay: an example that is near to several queries is trained on as often. Hits are taken rank by rank, because
    a cut then takes from every query alike.
    """
    return _by_rank(search(-(-num_retrieved // num_queries)), num_retrieved)


def interleave_distinct(search: Search, num_queries: int, num_retrieved: int) -> Ranking:
    """Interleaves as [`interleave`] does, with each example once: queries are searched deeper until |R| are distinct."""
    depth, found = -(-num_retrieved // num_queries), -1
    while True:
        ranking = _by_rank(search(depth), None)
        first = np.sort(np.unique(ranking.positions, return_index=True)[1])
        if len(first) >= num_retrieved or len(ranking.positions) == found:
            return Ranking(*(column[first[:num_retrieved]] for column in ranking))
        depth, found = 2 * depth, len(ranking.positions)


def round_robin(search: Search, num_queries: int, num_retrieved: int) -> Ranking:
    """Each query in turn takes its nearest example that none has taken yet, until there are |R| (RDS+, Ivison et al. 2025, section 3).

    [`interleave_distinct`] passes over a query whose turn brings an example that was taken; here that query takes its next one, so
    that all queries have as many. A query's |R| nearest are deep enough, for no more than |R| - 1 of them are taken.
    """
    hits = search(num_retrieved)
    taken: dict[int, tuple[int, float]] = {}
    waiting = [
        iter(zip(*of_query, strict=True)) for of_query in zip(hits.positions.tolist(), hits.distances, strict=True)
    ]
    while len(taken) < num_retrieved:
        before = len(taken)
        for query, of_query in enumerate(waiting):
            found = next(((row, far) for row, far in of_query if row >= 0 and row not in taken), None)
            if found is not None and len(taken) < num_retrieved:
                taken[found[0]] = query, found[1]
        if len(taken) == before:
            break
    queries, distances = np.array([*taken.values()], dtype=np.float64).reshape(-1, 2).T
    return Ranking(np.fromiter(taken, dtype=np.int64), queries.astype(np.int64), distances)


def mean_distance(search: Search, num_queries: int, num_retrieved: int) -> Ranking:
    """The |R| examples with the least mean distance over all queries, among each query's top |R|.

    Where an example is not among a query's top |R|, the distance of that query's last hit stands in: a lower bound.
    """
    hits = search(num_retrieved)
    found = hits.positions >= 0
    candidates, column = np.unique(hits.positions[found], return_inverse=True)
    last = np.where(found, hits.distances, -np.inf).max(axis=1, initial=-np.inf)
    distances = np.repeat(last[:, None], len(candidates), axis=1)
    distances[np.nonzero(found)[0], column] = hits.distances[found]
    mean = distances.mean(axis=0)
    best = np.argsort(mean, kind="stable")[:num_retrieved]
    return Ranking(candidates[best], np.full(len(best), -1), mean[best])


def _by_rank(hits: Hits, limit: int | None) -> Ranking:
    queries = np.broadcast_to(np.arange(len(hits.positions))[:, None], hits.positions.shape)
    found = (hits.positions >= 0).T.ravel()
    columns = (hits.positions, queries, hits.distances)
    return Ranking(*(values.T.ravel()[found][:limit] for values in columns))
