"""A set of 64-bit digests that grows by batches: what was seen before."""

from __future__ import annotations

import numpy as np


class DigestSet:
    """A set of 64-bit digests that grows by batches.

    Kept as sorted arrays of falling size, which are merged when two are of like size: adding `n` digests takes time in
    proportion to `n log n`, whatever the size of the batches.
    """

    def __init__(self) -> None:
        self._levels: list[np.ndarray] = []

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def add(self, digests: np.ndarray) -> np.ndarray:
        """Adds digests `[n]` (uint64), and tells of each whether it is new; of equal ones in the batch the first is."""
        distinct, first = np.unique(digests, return_index=True)
        is_new = np.zeros(len(digests), dtype=bool)
        for level in self._levels:
            position = np.minimum(np.searchsorted(level, distinct), len(level) - 1)
            keep = level[position] != distinct
            distinct, first = distinct[keep], first[keep]
        is_new[first] = True
        if len(distinct):
            self._levels.append(distinct)
        while len(self._levels) > 1 and len(self._levels[-2]) <= 2 * len(self._levels[-1]):
            smaller, larger = self._levels.pop(), self._levels.pop()
            self._levels.append(np.sort(np.concatenate([larger, smaller]), kind="stable"))
        return is_new
