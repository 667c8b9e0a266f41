"""Confidence intervals and p-values for models that were tested on the same examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# So many weights of resamples are held at once: 32 MiB of them.
_WEIGHTS_AT_ONCE = 1 << 22
# Resampled differences are rounded to so many decimals, so that what cancels is zero and not the rest of a sum.
_DECIMALS = 9


class Interval(NamedTuple):
    """A mean and its confidence interval."""

    mean: float
    low: float
    high: float


def paired_interval(
    differences: Sequence[np.ndarray],
    *,
    clusters: Sequence[np.ndarray] | None = None,
    stretch_sets: bool = False,
    level: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Mean difference between two models, with a bootstrap interval over query sets and examples.

    Within each task the query sets and the test examples are both drawn anew, with replacement; the tasks are fixed.
    Both matter: another query set retrieves other examples, and another test set scores them differently.

    Args:
        differences: Arrays `[num_query_sets, num_examples]`, one a task: the score of the one model minus that of the other,
            for each example.
        clusters: Arrays `[num_examples]`, one a task: the number of the source example that each is a rendering of. Examples with
            the same number are drawn together. By default each example stands alone.
        stretch_sets: Whether deviations of query sets are stretched where there are few, see [`resampled_means`].
        level: Coverage of the interval.
        num_resamples: Number of bootstrap resamples.
        seed: Seed for drawing the resamples.

    Returns:
        Mean over tasks of the mean difference, with its percentile interval, in the unit of `differences`.

    Raises:
        ValueError: there is no task, a task's array is not two-dimensional or is empty, or it has not one cluster an example.
    """
    if not len(differences):
        raise ValueError("Expected the differences of at least one task, found none.")
    for array in differences:
        if array.ndim != 2 or not array.size:
            raise ValueError(f"Expected arrays [num_query_sets, num_examples], found the shape {list(array.shape)}.")
    if clusters is None:
        clusters = [np.arange(array.shape[1]) for array in differences]
    rng = np.random.default_rng(seed)
    resampled = np.zeros(num_resamples)
    for array, numbers in zip(differences, clusters, strict=True):
        means = resampled_means(array[None], numbers, num_resamples=num_resamples, rng=rng, stretch_sets=stretch_sets)
        resampled += means[:, 0]
    mean = float(np.mean([array.mean() for array in differences]))
    return interval_of(mean, resampled / len(differences), level=level)


def resampled_means(
    scores: np.ndarray,
    clusters: np.ndarray,
    *,
    num_resamples: int,
    rng: np.random.Generator,
    stretch_sets: bool = False,
) -> np.ndarray:
    """Means over query sets and examples of one task, as other query sets and examples might have given them.

    Query sets and source examples are drawn independently of each other, as often as there are any, with replacement: the
    pigeonhole bootstrap for crossed factors (Owen 2007, https://doi.org/10.1214/07-AOAS122), which errs towards wide intervals.
    `scipy.stats.bootstrap` resamples one factor. All models get the same draws, so that differences of the means are those of pairs.

    Args:
        scores: Scores `[num_models, num_query_sets, num_examples]`; where query sets play no part in a model its rows are equal.
        clusters: Numbers `[num_examples]` of the source examples, in any numbering.
        num_resamples: Number of bootstrap resamples.
        rng: Generator that the resamples are drawn from.
        stretch_sets: Whether the deviations of query sets are stretched, so that their variance is right. The variance of a mean of S
            resampled query sets is (S - 1) / S of that of S new ones, half of it where S is two. One query set does not vary.

    Returns:
        Means `[num_resamples, num_models]`, in the unit of `scores`.

    Raises:
        ValueError: there is not one cluster an example.
    """
    num_models, num_sets, num_examples = scores.shape
    if clusters.shape != (num_examples,):
        raise ValueError(f"Expected a cluster for each of {num_examples} examples, found {list(clusters.shape)}.")
    _, numbers, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    sums = np.zeros((len(sizes), num_models * num_sets))
    np.add.at(sums, numbers, scores.reshape(num_models * num_sets, num_examples).T)
    set_weights = rng.multinomial(num_sets, np.full(num_sets, 1 / num_sets), size=num_resamples) / num_sets
    if stretch_sets and num_sets > 1:
        set_weights = 1 / num_sets + (set_weights - 1 / num_sets) * np.sqrt(num_sets / (num_sets - 1))
    resampled = np.empty((num_resamples, num_models))
    at_once = max(1, _WEIGHTS_AT_ONCE // len(sizes))
    for start in range(0, num_resamples, at_once):
        some = slice(start, min(start + at_once, num_resamples))
        weights = rng.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=some.stop - start)
        # As in the observed mean, a source with more renderings weighs more.
        means = (weights @ sums) / (weights @ sizes)[:, None]
        resampled[some] = np.einsum("rms,rs->rm", means.reshape(-1, num_models, num_sets), set_weights[some])
    return resampled


def interval_of(mean: float, resampled: np.ndarray, *, level: float = 0.95) -> Interval:
    """The percentile interval of a mean, from its resamples."""
    low, high = np.quantile(np.round(resampled, _DECIMALS), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def p_value(resampled: np.ndarray) -> float:
    """Two-sided p-value of a difference, by inversion of the percentile interval (Efron and Tibshirani 1993, section 15.4).

    The p-value is twice the share of resampled differences on the rarer side of zero, with zero counted on both sides. One is added
    to both counts, so that no p-value is 0 (Davison and Hinkley 1997, section 4.2). It is below 0.05 where the 95 % interval
    leaves zero out.
    """
    rounded = np.round(resampled, _DECIMALS)
    rarer = min(np.count_nonzero(rounded <= 0), np.count_nonzero(rounded >= 0))
    return min(1.0, 2 * (rarer + 1) / (len(rounded) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

    Rejecting those below 0.05 errs in any of them with a probability of at most 0.05. scipy corrects for the rate of false
    discoveries alone.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = largest
    return corrected


def share_interval(percent: float, num_examples: int, *, level: float = 0.95) -> Interval:
    """A share of independent examples with its Wilson interval, in percent.

    The interval says how much the choice of test examples matters; it knows nothing of query sets, nor of examples that share a
    source.

    Args:
        percent: Share of the examples, 0 to 100. A rounded share stands for the nearest whole number of examples.
        num_examples: Number of examples that the share is of.
        level: Coverage of the interval.

    Raises:
        ValueError: there is no example, or the share is below 0 or above 100.
    """
    from scipy.stats import binomtest

    if num_examples < 1 or not 0 <= percent <= 100:
        raise ValueError(
            f"Expected a share of 0 to 100 percent of at least one example, found {percent} of {num_examples}. Give the percentage "
            "and the number of examples that it was measured on."
        )
    count = round(percent * num_examples / 100)
    interval = binomtest(count, num_examples).proportion_ci(level, method="wilson")
    return Interval(percent, 100 * float(interval.low), 100 * float(interval.high))
