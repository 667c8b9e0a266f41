"""`IndexMap`: a sample of an index in two dimensions, in which other texts can be placed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Dataset
from sklearn.decomposition import PCA

from ..data.conversations import texts_of
from .index import UpstreamIndex
from .lance.index import LanceIndex
from .lance.retriever import rows_of

MOST_POINTS = 1_200
"""Number of examples that are shown: more would hide one another."""


@dataclass(frozen=True)
class IndexMap:
    """The two directions in which the vectors of an index differ most (PCA), and a sample of its examples there.

    ```python
    index_map = IndexMap.of(index)
    index_map.points, index_map.examples["task"]
    index_map.project(index.encoder.encode(["an input of yours"]))
    ```

    Args:
        examples: The sample, in the order of the index.
        points: Array `[n, 2]` of the sample.
        mean: Array `[d]` that is taken from each vector.
        axes: Array `[2, d]` of the two directions.
        explained: Share of the variance that the two directions hold, from 0 to 1.
        normalizes: Whether vectors are placed as vectors of length 1, as an index has them that compares by cosine ("L2norm,...").
    """

    examples: Dataset
    points: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    explained: float
    normalizes: bool = False

    @classmethod
    def of(cls, index: UpstreamIndex | LanceIndex, *, most_points: int = MOST_POINTS, seed: int = 0) -> IndexMap:
        """Draws a sample of an index, of which nothing else is read. Vectors that the index does not give back are encoded anew.

        Args:
            index: The index.
            most_points: Number of examples that are drawn, where there are as many.
            seed: Seed for drawing.
        """
        number = min(most_points, len(index))
        rows = np.sort(np.random.default_rng(seed).choice(len(index), number, replace=False))
        examples = rows_of(index).select(rows)
        normalizes = "L2norm" in str(index.config.get("factory"))
        vectors = _placed(_vectors(index, rows, examples), normalizes)
        mean, explained = vectors.mean(axis=0), 1.0
        axes = np.zeros((2, vectors.shape[1]), dtype=np.float32)
        if number > 1:  # of few examples there are fewer directions than two
            pca = PCA(min(2, *vectors.shape), svd_solver="randomized", random_state=seed).fit(vectors)
            axes[: len(pca.components_)] = pca.components_
            # Vectors that are all alike vary in no direction.
            explained = float(np.nan_to_num(pca.explained_variance_ratio_, nan=1.0).sum())
        return cls(examples, (vectors - mean) @ axes.T, mean, axes, explained, normalizes)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """The places of other vectors, as an array `[n, 2]`.

        Args:
            vectors: Array `[n, d]` from the index's encoder.
        """
        places: np.ndarray = (_placed(vectors, self.normalizes) - self.mean) @ self.axes.T
        return places


def _placed(vectors: np.ndarray, normalizes: bool) -> np.ndarray:
    found: np.ndarray = np.asarray(vectors, dtype=np.float32)
    if normalizes:
        found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return found


def _vectors(index: UpstreamIndex | LanceIndex, rows: np.ndarray, examples: Dataset) -> np.ndarray:
    if isinstance(index, LanceIndex):
        return index.vectors(rows)
    try:
        return np.stack([index.faiss_index.reconstruct(int(row)) for row in rows])
    except RuntimeError:  # an IVF index does not know in which list a row lies
        return np.asarray(index.encoder.encode(texts_of(examples)), dtype=np.float32)
