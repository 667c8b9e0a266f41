"""Utility estimators: how much does each upstream example help a model on held-out examples of another task?

A utility estimator is a function of a [`GroupTrainer`], tokenised candidates and held-out examples, the settings, a random generator
and a function to call after each group. It returns [`UtilityEstimates`]. To add one, write such a function and pass it to
`mine_supervision`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .arguments import SupervisionArguments
from .group_trainer import Batch, GroupTrainer


class UtilityEstimates(NamedTuple):
    """Utilities of the candidates of one query set.

    `base_loss` is the held-out loss of the model as it is, `utilities` `[num_candidates, num_rounds]` rise with the help that a
    candidate is (NaN or infinite: training diverged), `num_diverged` counts groups.
    """

    base_loss: float
    utilities: np.ndarray
    num_diverged: int


UtilityEstimator = Callable[
    [GroupTrainer, Sequence[Batch], Sequence[Batch], SupervisionArguments, np.random.Generator, Callable[[], object]],
    UtilityEstimates,
]


def by_groups(
    trainer: GroupTrainer,
    candidates: Sequence[Batch],
    held_out: Sequence[Batch],
    args: SupervisionArguments,
    rng: np.random.Generator,
    progress: Callable[[], object],
) -> UtilityEstimates:
    """Groups of candidates are learned from; a utility is the fall of the held-out loss (paper, Algorithm 1).

    In each round the candidates are shuffled and split into groups; a candidate's utility is the base loss minus the loss
    after its group.

    Args:
        trainer: Trainer of the upstream model.
        candidates: Tokenised candidates.
        held_out: Tokenised examples of the queries' task.
        args: Settings of the mining.
        rng: Generator that shuffles the candidates.
        progress: Function that is called after each group.
    """
    batches = trainer.batches(held_out)
    base_loss = float(trainer.losses(batches).mean())
    utilities = np.full((len(candidates), args.num_rounds), np.nan)
    num_diverged = 0
    if not math.isfinite(base_loss):
        return UtilityEstimates(base_loss, utilities, num_diverged)
    for turn in range(args.num_rounds):
        for group in np.array_split(rng.permutation(len(candidates)), -(-len(candidates) // args.group_size)):
            loss = trainer.loss_after([candidates[row] for row in group], batches)
            utilities[group, turn] = base_loss - loss
            num_diverged += not math.isfinite(loss)
            progress()
    return UtilityEstimates(base_loss, utilities, num_diverged)


def by_reversal(
    trainer: GroupTrainer,
    candidates: Sequence[Batch],
    held_out: Sequence[Batch],
    args: SupervisionArguments,
    rng: np.random.Generator,
    progress: Callable[[], object],
) -> UtilityEstimates:
    """Held-out examples are learned from; a utility is the fall of the candidate's own loss.

    How much a small gradient step on one example lowers the loss of another is the inner product of their gradients, the same
    in both directions (of AdamW's steps that is an approximation). So one training answers for all candidates at once, each
    on its own and not as one of twenty in a group. Steps are not small, and whatever is learned makes the model forget: each
    candidate's loss is taken after learning and as far on the other side of where the model was, and half the difference is its
    utility. Losses that rise on both sides, as by forgetting, cancel; without that, the examples that the model knows best would seem
    to help most, for it forgets them least. Each two rounds train on the two halves of the held-out examples: their agreement
    says how far to trust them.

    Args:
        trainer: Trainer of the upstream model.
        candidates: Tokenised candidates.
        held_out: Tokenised examples of the queries' task, at least two.
        args: Settings of the mining.
        rng: Generator that halves the held-out examples.
        progress: Function that is called after each round.

    Raises:
        ValueError: There are fewer than two held-out examples.
    """
    if len(held_out) < 2:
        raise ValueError(
            f"Expected at least two held-out examples to halve, found {len(held_out)}. Raise `num_held_out`."
        )
    batches = trainer.batches(candidates)
    base_loss = float(trainer.losses(trainer.batches(held_out)).mean())
    utilities = np.full((len(candidates), args.num_rounds), np.nan)
    halves: list[np.ndarray] = []
    for turn in range(args.num_rounds):
        if not halves:
            halves = np.array_split(rng.permutation(len(held_out)), 2)
        half = halves.pop()
        with trainer.learned([held_out[row] for row in half]):
            after = trainer.losses(batches)
            trainer.mirror()
            utilities[:, turn] = (trainer.losses(batches) - after) / 2
        progress()
    num_diverged = int((~np.isfinite(utilities)).all(axis=0).sum())
    return UtilityEstimates(base_loss, utilities, num_diverged)
