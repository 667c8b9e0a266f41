"""Numbers of 64 bits for things: which were seen before, and a random order that a seed determines."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

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


def digest_of(content: Any) -> int:
    """64 bits that a JSON value determines, in any process."""
    text = json.dumps(content, sort_keys=True, default=str, ensure_ascii=False)
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def spread(values: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele et al. 2014): numbers in a row come out as if drawn at random, and none twice."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
