"""SIFT: the examples that leave a model the least uncertain about the inputs, rather than those nearest to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from .aggregation import Hits, Ranking
from .index import UpstreamIndex
from .index_search import stored_vectors
from .retriever import DenseRetriever, Retriever


class SIFTRetriever(DenseRetriever):
    """Examples that together tell the most about the inputs (Hübotter et al. 2024, arXiv 2410.08020, section 3: SIFT).

    ```python
    SIFTRetriever(UpstreamIndex.from_pretrained("index", encoder=encoder)).retrieve(inputs, num_retrieved=512)
    ```

    Among each input's nearest `num_candidates`, one example after the other is taken that most lowers the posterior variance of a
    Gaussian process at the inputs, summed over them; the kernel is the cosine of the vectors. An example that says what was said already
    lowers it little, so that near-copies do not fill the set. As in the paper an example may be taken again, which helps where it is
    alone in being near; the paper has one input at a time, and the sum over several is that of its library, `activeft`.

    Args:
        index: Index to search, of a kind that gives its vectors (Flat, SQ8, HNSW); its encoder encodes the inputs.
        num_candidates: Nearest examples of each input to choose among; more where |R| distinct ones need them.
        noise: Variance lambda of the noise of an observation: the larger it is, the more nearness counts and the less redundancy does.
        distinct: Whether each example is taken once at most.
        exclude_tasks: Tasks never to retrieve from.
        exclude_ids: Examples never to retrieve.

    Raises:
        ValueError: `num_candidates` or `noise` is not above 0.
    """

    is_dense = False  # a reranker would choose again, one by one, among what was chosen together

    def __init__(
        self,
        index: UpstreamIndex,
        *,
        num_candidates: int = 200,
        noise: float = 0.01,
        distinct: bool = False,
        exclude_tasks: Collection[str] = (),
        exclude_ids: Collection[str] = (),
    ) -> None:
        super().__init__(index, exclude_tasks=exclude_tasks, exclude_ids=exclude_ids)
        if num_candidates < 1 or not noise > 0:
            raise ValueError(
                f"Expected `num_candidates` of at least 1 and `noise` above 0, found {num_candidates} and {noise}."
            )
        self.num_candidates, self.noise, self.distinct = num_candidates, noise, distinct

    def identity(self) -> dict[str, Any]:
        """The identity of the base class and the settings."""
        own = {"num_candidates": self.num_candidates, "noise": self.noise, "distinct": self.distinct}
        return super().identity() | own

    def rank(self, inputs: Sequence[str], num_retrieved: int) -> Ranking:
        vectors = self.encode(inputs)
        hits = self.search(vectors, max(self.num_candidates, num_retrieved if self.distinct else 0))
        rows = np.unique(hits.positions[hits.positions >= 0])
        candidates, queries = _normalized(stored_vectors(self.index.faiss_index, rows)), _normalized(vectors)
        taken, of_query = least_variance(candidates, queries, num_retrieved, noise=self.noise, distinct=self.distinct)
        cosines = (candidates[taken] * queries[of_query]).sum(axis=1)
        return Ranking(rows[taken], of_query, 2 - 2 * cosines)  # squared distances of the normalised vectors

    def nearest(self, inputs: Sequence[str], k: int) -> Hits:
        """Each input's own `k` examples, chosen for it alone."""
        return Retriever.nearest(self, inputs, k)


def least_variance(
    candidates: np.ndarray, queries: np.ndarray, num_taken: int, *, noise: float, distinct: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Takes candidates greedily, so that the posterior variance at the queries falls the most (SIFT, section 3).

    With k_n the covariance given the n examples taken so far, the next one is the x with the largest sum over queries q of
    k_n(q, x)^2 / (k_n(x, x) + noise). Each step conditions by one rank: no matrix is inverted.

    Args:
        candidates: Vectors `[n, d]`; the kernel is their inner product.
        queries: Vectors `[q, d]`.
        num_taken: Number of candidates to take.
        noise: Variance of the noise of an observation.
        distinct: Whether each candidate is taken once at most; otherwise one may be taken again.

    Returns:
        The rows of the candidates in their order, and for each the query whose variance it lowers the most.
    """
    count = min(num_taken, len(candidates)) if distinct else num_taken * bool(len(candidates))
    candidates, queries = candidates.astype(np.float64), queries.astype(np.float64)
    between = queries @ candidates.T
    variances = np.einsum("nd,nd->n", candidates, candidates)
    conditioned = np.empty((len(candidates), count))
    taken, of_query = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    free = np.ones(len(candidates), dtype=bool)
    for step in range(count):
        gains = np.where(free, (between**2).sum(axis=0) / (variances + noise), -np.inf)
        best = int(np.argmax(gains))
        scale = np.sqrt(variances[best] + noise)
        column = candidates @ candidates[best] - conditioned[:, :step] @ conditioned[best, :step]
        conditioned[:, step] = column / scale
        falls = between[:, best] / scale
        between -= np.outer(falls, conditioned[:, step])
        variances = np.maximum(variances - conditioned[:, step] ** 2, 0.0)
        taken[step], of_query[step], free[best] = best, int(np.argmax(falls**2)), not distinct
    return taken, of_query


def _normalized(vectors: np.ndarray) -> np.ndarray:
    lengths: np.ndarray = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit
