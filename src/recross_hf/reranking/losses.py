"""What a reranker learns from mined pairs: the paper's binary objective, and two that use the utilities.

An objective is a function of a batch's scores, labels, utilities and queries, four tensors `[n]`, and gives the loss.
Utilities come standardised within their query set, because losses of two tasks have different scales; pairs with the same
`query` number belong to one query of one set and can be compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Objective = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def binary(scores: Tensor, labels: Tensor, utilities: Tensor, queries: Tensor) -> Tensor:
    """Is the candidate among the best or the worst? Cross-entropy, as in the paper (section 3.3)."""
    return torch.nn.functional.binary_cross_entropy_with_logits(scores, labels)


def regression(scores: Tensor, labels: Tensor, utilities: Tensor, queries: Tensor) -> Tensor:
    """How much does the candidate help? Squared error of the standardised utility."""
    return torch.nn.functional.mse_loss(scores, utilities)


def pairwise(scores: Tensor, labels: Tensor, utilities: Tensor, queries: Tensor) -> Tensor:
    """Which of two candidates of a query helps more? Logistic loss of score differences, as RankNet (Burges et al. 2005).

    Needs batches that hold several candidates of a query (`group_by_query=True`); a batch with nothing to compare has no loss.
    """
    better = (utilities[:, None] > utilities[None, :]) & (queries[:, None] == queries[None, :])
    if not better.any():
        return scores.sum() * 0.0
    differences = scores[:, None] - scores[None, :]
    return torch.nn.functional.softplus(-differences[better]).mean()
