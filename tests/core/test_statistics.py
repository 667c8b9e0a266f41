import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.core import statistics as significance
from recross_hf.core.statistics import holm, interval_of, p_value, paired_interval, resampled_means, share_interval


def test_the_mean_is_that_of_the_tasks_whatever_their_sizes():
    interval = paired_interval([np.ones((5, 10)), np.zeros((5, 990))])
    assert np.allclose(interval, 0.5)


def test_it_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(200):
        differences = [rng.normal(0.3, 1, size=(1, 200)), rng.normal(0.1, 1, size=(1, 200))]
        interval = paired_interval(differences, num_resamples=500, seed=seed)
        covered.append(interval.low < 0.2 < interval.high)
    assert 0.88 < np.mean(covered) < 0.99


def test_differences_between_query_sets_widen_it():
    examples = np.random.default_rng(0).normal(size=200)
    alike = np.stack([examples, examples, examples])
    unlike = alike + np.array([[-1.0], [0.0], [1.0]])
    narrow, wide = paired_interval([alike]), paired_interval([unlike])
    assert np.isclose(narrow.mean, wide.mean)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_seed_decides():
    differences = [np.random.default_rng(0).normal(size=(3, 50))]
    assert paired_interval(differences, seed=1) == paired_interval(differences, seed=1)
    assert paired_interval(differences, seed=1) != paired_interval(differences, seed=2)


@pytest.mark.parametrize("differences, match", [([], "at least one task"), ([np.zeros(3)], r"found the shape \[3\]")])
def test_wrong_shapes_are_refused(differences, match):
    with pytest.raises(ValueError, match=match):
        paired_interval(differences)


# ---- clusters ----------------------------------------------------------------------------------------------------------

arrays = (
    st.integers(1, 3)
    .flatmap(
        lambda sets: st.lists(
            st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=sets, max_size=sets), min_size=2
        )
    )
    .map(lambda rows: np.array(rows).T)
)


@given(arrays, st.integers(0, 9))
def test_clusters_of_one_are_no_clusters(array, seed):
    numbered = np.random.default_rng(seed).permutation(array.shape[1])  # in any numbering
    alone = paired_interval([array], clusters=[np.sort(numbered) + 5], num_resamples=50)
    assert alone == paired_interval([array], num_resamples=50)


@given(arrays, st.sampled_from([-0.5, 0.25, 2.0]), st.data())
def test_a_constant_difference_is_certain(array, difference, data):
    clusters = np.array(data.draw(st.lists(st.integers(0, 3), min_size=array.shape[1], max_size=array.shape[1])))
    rng = np.random.default_rng(0)
    resampled = resampled_means(np.stack([array + difference, array]), clusters, num_resamples=50, rng=rng)
    low, high = interval_of(difference, resampled[:, 0] - resampled[:, 1])[1:]
    assert low == high == pytest.approx(difference)
    assert p_value(resampled[:, 0] - resampled[:, 1]) == pytest.approx(2 / 51)


@given(arrays)
def test_identical_models_do_not_differ(array):
    resampled = resampled_means(
        np.stack([array / 3, array / 3]), np.arange(array.shape[1]), num_resamples=50, rng=np.random.default_rng(0)
    )
    assert p_value(resampled[:, 0] - resampled[:, 1]) == 1.0


def test_renderings_of_one_source_are_no_further_evidence():
    sources = np.random.default_rng(0).normal(size=(1, 50))
    repeated = np.repeat(sources, 4, axis=1)
    together = paired_interval([repeated], clusters=[np.repeat(np.arange(50), 4)])
    assert together == pytest.approx(paired_interval([sources]), abs=1e-9)
    apart = paired_interval([repeated])
    assert together.high - together.low > 1.8 * (apart.high - apart.low)


def test_a_source_with_more_renderings_weighs_more():
    array = np.array([[1.0, 1.0, 1.0, 0.0]])
    assert paired_interval([array], clusters=[np.array([7, 7, 7, 3])]).mean == 0.75


def test_clustered_intervals_over_query_sets_cover_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), 3)
    covered = []
    for seed in range(200):
        sources, sets = rng.normal(size=(1, 60)), rng.normal(0, 0.2, size=(5, 1))
        array = 0.3 + np.repeat(sources, 3, axis=1) + sets + rng.normal(size=(5, 180))
        interval = paired_interval([array], clusters=[clusters], num_resamples=400, seed=seed)
        covered.append(interval.low < 0.3 < interval.high)
    assert 0.9 < np.mean(covered) < 0.99


def test_p_values_of_models_that_do_not_differ_are_small_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    small = []
    for _ in range(300):
        array = rng.normal(size=(1, 1, 80))
        resampled = resampled_means(array, np.arange(80), num_resamples=400, rng=rng)
        small.append(p_value(resampled[:, 0]) < 0.1)
    assert 0.05 < np.mean(small) < 0.15


@given(st.lists(st.floats(-1, 1), min_size=20, max_size=60), st.sampled_from([0.8, 0.9, 0.95]))
def test_p_values_and_intervals_agree(values, level):
    resampled = np.array(values)
    _, low, high = interval_of(0.0, resampled, level=level)
    if p_value(resampled) <= 1 - level:
        assert not low < 0 < high


def test_memory_does_not_grow_with_the_resamples(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(2, 3, 40))
    at_once = resampled_means(scores, np.arange(40), num_resamples=30, rng=np.random.default_rng(0))
    monkeypatch.setattr(significance, "_WEIGHTS_AT_ONCE", 7 * 40)
    in_parts = resampled_means(scores, np.arange(40), num_resamples=30, rng=np.random.default_rng(0))
    assert np.allclose(at_once, in_parts)


@pytest.mark.parametrize("num_sets", [2, 3, 5])
def test_stretched_resamples_vary_as_means_of_new_query_sets_do(num_sets):
    sets = np.random.default_rng(num_sets).normal(size=(1, num_sets, 1))
    variances = [
        resampled_means(
            sets, np.zeros(1), num_resamples=20_000, rng=np.random.default_rng(0), stretch_sets=stretched
        ).var()
        for stretched in (False, True)
    ]
    expected = sets.var(ddof=1) / num_sets
    assert variances[1] == pytest.approx(expected, rel=0.05)
    assert variances[0] == pytest.approx(expected * (num_sets - 1) / num_sets, rel=0.05)


def test_one_query_set_cannot_be_stretched():
    array = np.random.default_rng(0).normal(size=(1, 20))
    assert paired_interval([array], stretch_sets=True) == paired_interval([array])


def test_clusters_of_other_examples_are_refused():
    with pytest.raises(ValueError, match=r"a cluster for each of 3 examples, found \[2\]"):
        paired_interval([np.ones((1, 3))], clusters=[np.zeros(2)])


# ---- many comparisons --------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_keeps_the_order_and_lies_between_the_p_value_and_bonferroni(p_values):
    adjusted = holm(p_values)
    by_p = [found for _, found in sorted(zip(p_values, adjusted, strict=True))]
    assert by_p == sorted(by_p)
    for p, found in zip(p_values, adjusted, strict=True):
        assert p <= found <= min(1.0, len(p_values) * p)


# ---- shares ------------------------------------------------------------------------------------------------------------


@given(st.integers(1, 10_000).flatmap(lambda number: st.tuples(st.integers(0, number), st.just(number))))
def test_a_shares_interval_holds_it_and_stays_in_bounds(counts):
    count, num_examples = counts
    percent = 100 * count / num_examples
    mean, low, high = share_interval(percent, num_examples)
    assert 0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 100
    assert share_interval(percent, 4 * num_examples).high - share_interval(percent, 4 * num_examples).low < high - low


def test_a_rounded_share_is_that_of_the_nearest_count():
    assert share_interval(33.33, 3)[1:] == share_interval(100 / 3, 3)[1:]


@pytest.mark.parametrize(("percent", "num_examples"), [(50, 0), (-1, 10), (100.1, 10), (math.nan, 10)])
def test_a_share_of_nothing_or_beyond_all_has_no_interval(percent, num_examples):
    with pytest.raises(ValueError, match=f"found {percent} of {num_examples}"):
        share_interval(percent, num_examples)


def test_a_shares_interval_is_wilsons():
    assert share_interval(50, 100) == pytest.approx((50, 40.3832, 59.6168), abs=1e-4)
    assert share_interval(0, 10) == pytest.approx((0, 0, 27.7533), abs=1e-4)
