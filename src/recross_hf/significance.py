"""Is it better? Paired comparisons of two models on the same examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def paired_interval(
    differences: Sequence[np.ndarray], *, level: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Mean difference between two models, with a bootstrap interval over query sets and examples.

    Within each task the query sets and the test examples are both drawn anew, with replacement; the tasks are fixed.
    Both matter: another query set retrieves other examples, and another test set scores them differently.

    Args:
        differences: for each task an array `[num_query_sets, num_examples]`: the score of the one model minus that of the
            other, for each example.
        level: coverage of the interval.

    Returns:
        Mean over tasks of the mean difference, with its percentile interval, in the unit of `differences`.

    Raises:
        ValueError: there is no task, or a task's array is not two-dimensional or is empty.
    """
    if not len(differences):
        raise ValueError("Expected the differences of at least one task, found none.")
    for array in differences:
        if array.ndim != 2 or not array.size:
            raise ValueError(f"Expected arrays [num_query_sets, num_examples], found the shape {list(array.shape)}.")
    rng = np.random.default_rng(seed)
    resampled = np.zeros(num_resamples)
    for array in differences:
        num_sets, num_examples = array.shape
        # How often each query set and each example is drawn; the mean is then a product of three factors.
        sets = rng.multinomial(num_sets, np.full(num_sets, 1 / num_sets), size=num_resamples) / num_sets
        examples = rng.multinomial(num_examples, np.full(num_examples, 1 / num_examples), size=num_resamples)
        resampled += np.einsum("rs,sn,rn->r", sets, array, examples / num_examples, optimize=True)
    low, high = np.quantile(resampled / len(differences), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(np.mean([array.mean() for array in differences])), float(low), float(high))


def share_interval(percent: float, num_examples: int, *, level: float = 0.95) -> Interval:
    """A share of independent examples with its Wilson interval, in percent.

    It knows nothing of query sets, nor of examples that share a source: it says how much the choice of test examples matters.
    """
    z, share = NormalDist().inv_cdf((1 + level) / 2), percent / 100
    centre = (share + z**2 / (2 * num_examples)) / (1 + z**2 / num_examples)
    half = (
        z / (1 + z**2 / num_examples) * math.sqrt(share * (1 - share) / num_examples + (z / (2 * num_examples)) ** 2)
    )
    return Interval(percent, 100 * max(0.0, centre - half), 100 * min(1.0, centre + half))
