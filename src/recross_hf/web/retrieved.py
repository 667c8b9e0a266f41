"""`Found`: what is retrieved for a visitor's inputs, and the nearest examples of each of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset

from ..adaptation.results import task_shares
from ..retrieval.aggregation import Hits, Ranking, Search, interleave
from ..retrieval.encoder import Encoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.lance.index import LanceIndex
from ..retrieval.upstream_rows import UpstreamRows

SHOWN_NEIGHBOURS = 5


@dataclass(frozen=True)
class Found:
    """What was retrieved.

    Args:
        retrieved: Examples to learn from, with `rank`, `query` and `distance`.
        neighbours: Rows of the nearest examples of each input, with `distance` and whether they are learned from, `is_taken`.
        excluded: Tasks that were left out.
        places: Places of the inputs in the picture of the index, an array `[n, 2]`.
        seconds: Wall time.
    """

    retrieved: Dataset
    neighbours: Sequence[Sequence[dict[str, Any]]]
    excluded: Sequence[str]
    places: np.ndarray
    seconds: float

    @property
    def shares(self) -> dict[str, float]:
        """The share of each task in the examples, largest first."""
        return task_shares(self.retrieved)


def noticed(index: UpstreamIndex | LanceIndex, noticing: Noticing) -> UpstreamIndex | LanceIndex:
    """An index whose queries are encoded by what notices it; nothing is copied.

    Args:
        index: The index.
        noticing: What encodes.
    """
    if isinstance(index, LanceIndex):
        other = copy.copy(index)
        other.encoder = noticing
        return other
    return UpstreamIndex(index.dataset, index.faiss_index, noticing, index.config)


class Noticing:
    """An encoder and an aggregation, the paper's [`interleave`], that notice what a retrieval computes and does not give back.

    Args:
        encoder: Encoder of the inputs.

    Attributes:
        vectors: Vectors of the inputs.
        hits: The nearest examples of each input.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.vectors: np.ndarray | None = None
        self.hits: Hits | None = None

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encodes texts."""
        self.vectors = np.asarray(self._encoder.encode(texts), dtype=np.float32)
        return self.vectors

    def aggregate(self, search: Search, num_queries: int, num_retrieved: int) -> Ranking:
        """Makes one ranking of the hits of all inputs."""
        self.hits = search(SHOWN_NEIGHBOURS)
        return interleave(search, num_queries, num_retrieved)


def neighbours_of(hits: Hits, upstream: UpstreamRows, retrieved: Dataset) -> list[list[dict[str, Any]]]:
    """The nearest examples of each input as rows; an index of fewer examples gives fewer.

    Args:
        hits: What the search found.
        upstream: Examples of the index.
        retrieved: Examples that are learned from.
    """
    taken = set(retrieved["id"][:])
    found = []
    for positions, distances in zip(hits.positions, hits.distances, strict=True):
        there = positions >= 0
        rows = upstream.select(positions[there]).to_list()
        found.append(
            [
                {**row, "distance": float(distance), "is_taken": row["id"] in taken}
                for row, distance in zip(rows, distances[there], strict=True)
            ]
        )
    return found
