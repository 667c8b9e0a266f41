"""Losses of a reranker on mined pairs: the paper's binary cross-entropy, and two that use the utilities.

A loss is a function of a batch's scores, labels, utilities and queries, four tensors `[n]`, and returns a scalar tensor. To add one,
write such a function and pass it to `train_reranker`. Utilities come standardised within their query set, because the
held-out losses of two tasks have different scales; pairs with the same query number belong to one query of one set and can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def binary(scores: Tensor, labels: Tensor, utilities: Tensor, queries: Tensor) -> Tensor:
    """Cross-entropy of the labels, as in the paper (section 3.3): is the candidate among the best or the worst?"""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)


def regression(scores: Tensor, labels: Tensor, utilities: Tensor, queries: Tensor) -> Tensor:
    """Squared error of the standardised utilities: how much does the candidate help?"""
    return torch.nn.functional.mse_loss(scores, utilities)


def pairwise(scores: Tensor, labels: Tensor, utilities: Tensor, queries: Tensor) -> Tensor:
    """Logistic loss of score differences, as RankNet (Burges et al. 2005): which of two candidates of a query helps more?

    It needs batches that hold several candidates of a query (`group_by_query=True`); a batch with nothing to compare has a loss of 0.
    """
    better = (utilities[:, None] > utilities[None, :]) & (queries[:, None] == queries[None, :])
    if not better.any():
        return scores.sum() * 0.0
    differences = scores[:, None] - scores[None, :]
    return torch.nn.functional.softplus(-differences[better]).mean()
