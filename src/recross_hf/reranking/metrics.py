"""How well scores order candidates: area under the ROC curve and rank correlation, with ties (NumPy and pandas alone)."""

from __future__ import annotations

import numpy as np
import pandas as pd


def roc_auc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties counting half; NaN where either is missing."""
    ranks = _ranks(scores)
    positive = np.asarray(labels) == 1
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        return float("nan")
    wins = ranks[positive].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


def spearman(scores: np.ndarray, values: np.ndarray) -> float:
    """Spearman's rank correlation, ties sharing their mean rank; NaN where one side is constant or there are fewer than two."""
    first, second = _ranks(scores), _ranks(values)
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    return pd.Series(np.asarray(values, dtype=np.float64)).rank().to_numpy()
