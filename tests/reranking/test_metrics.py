import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recross_hf.reranking.metrics import roc_auc, spearman

# Few different numbers, so that there are ties.
PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30)


@given(PAIRS)
def test_roc_auc_is_the_share_of_pairs_that_are_in_order(rows):
    scores, values = np.array(rows).T
    labels = (values > 0).astype(int)
    pairs = [(one, other) for one in scores[labels == 1] for other in scores[labels == 0]]
    if not pairs:
        assert math.isnan(roc_auc(scores, labels))
    else:
        wins = sum((one > other) + (one == other) / 2 for one, other in pairs)
        assert roc_auc(scores, labels) == pytest.approx(wins / len(pairs), abs=1e-12)


@given(PAIRS)
def test_spearman_is_the_correlation_of_mean_ranks(rows):
    scores, values = np.array(rows, dtype=float).T
    if np.ptp(scores) == 0 or np.ptp(values) == 0:
        assert math.isnan(spearman(scores, values))
    else:
        ranks = [[np.mean(np.flatnonzero(np.sort(side) == one)) for one in side] for side in (scores, values)]
        assert spearman(scores, values) == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)


def test_order_alone_counts():
    scores, labels = np.array([0.1, 5.0, 0.2, 90.0]), np.array([0, 1, 0, 1])
    assert roc_auc(scores, labels) == 1
    assert roc_auc(-scores, labels) == 0
    assert roc_auc(np.ones(4), labels) == 0.5
    assert spearman(scores, np.exp(scores)) == pytest.approx(1)
    assert spearman(scores, -scores) == pytest.approx(-1)


@pytest.mark.parametrize(
    "scores, values", [([], []), ([1.0], [1.0]), ([1.0, 2.0], [3.0, 3.0]), ([1.0, 1.0], [3.0, 4.0])]
)
def test_where_nothing_can_be_ordered_there_is_no_correlation(scores, values):
    assert math.isnan(spearman(np.array(scores), np.array(values)))


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0]])
def test_one_class_has_no_area(labels):
    assert math.isnan(roc_auc(np.arange(len(labels)), np.array(labels)))


def test_a_score_that_is_no_number_is_refused_or_gives_no_correlation():
    broken = np.array([1.0, np.nan, 3.0])
    with pytest.raises(ValueError, match="NaN"):
        roc_auc(broken, np.array([0, 1, 1]))
    assert math.isnan(spearman(broken, np.array([1.0, 2.0, 3.0])))
