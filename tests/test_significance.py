import numpy as np
import pytest

from recross_hf.significance import paired_interval


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
