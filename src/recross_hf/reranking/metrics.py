"""How well scores order candidates: the area under the ROC curve and rank correlation, as scikit-learn and scipy compute them.

Both have a value that tells that there is nothing to order, NaN, where the libraries warn or raise.
"""

from __future__ import annotations

import numpy as np


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half; 0.5 where all scores are the same.

    Args:
        scores: `[num_candidates]`, finite.
        labels: `[num_candidates]`; 1 stands for a positive, anything else for a negative.

    Returns:
        The area, or NaN where positives or negatives are missing.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    from sklearn.metrics import roc_auc_score

    is_positive = np.asarray(labels) == 1
    if is_positive.all() or not is_positive.any():
        return float("nan")
    return float(roc_auc_score(is_positive, scores))


def spearman(scores: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank.

    Returns:
        The correlation, or NaN where one side is constant or holds a NaN, or where there are fewer than two candidates.
    """
    from scipy.stats import spearmanr

    if len(scores) < 2 or np.ptp(scores) == 0 or np.ptp(values) == 0:
        return float("nan")
    return float(spearmanr(scores, values).statistic)
