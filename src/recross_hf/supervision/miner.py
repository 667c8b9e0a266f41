"""The mining of one query set: draw it, retrieve candidates, estimate their utilities (Algorithm 1)."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..data.conversations import texts_of
from .arguments import SupervisionArguments
from .candidates import CandidateSource
from .group_trainer import GroupTrainer
from .sampling import QuerySetSampler
from .utility import UtilityEstimator

logger = logging.getLogger(__name__)


class QuerySetMiner:
    """Mines query sets, one at a time; the seed and a set's number alone decide what it draws.

    Args:
        sampler: Sampler of the query sets.
        source: Source of their candidates.
        utility_estimator: Function that estimates the candidates' utilities.
        args: Settings of the mining.
    """

    def __init__(
        self,
        sampler: QuerySetSampler,
        source: CandidateSource,
        utility_estimator: UtilityEstimator,
        args: SupervisionArguments,
    ) -> None:
        self.sampler = sampler
        self.source = source
        self.utility_estimator = utility_estimator
        self.args = args

    @property
    def groups_a_set(self) -> int:
        """Number of groups that a set with all its candidates has, in all rounds."""
        return self.args.num_rounds * -(-self.args.num_candidates // self.args.group_size)

    def mine(self, number: int, trainer: GroupTrainer, progress: tqdm) -> dict[str, Any]:
        """Mines a query set: a row of `SET_FEATURES`.

        Args:
            number: Number of the set.
            trainer: Trainer of the upstream model.
            progress: Progress bar, which counts groups.
        """
        rng = np.random.default_rng([self.args.seed, 0, number])
        task = self.sampler.task_of(number)
        queries, held_out = self.sampler.draw(task, rng)
        mined = {
            "set": number,
            "task": task,
            "queries": queries["input"][:],
            "query_ids": queries["id"][:],
            "held_out_ids": held_out["id"][:],
            "base_loss": None,
            "candidates": [],
            "diverged_groups": 0,
        }
        start = progress.n
        retrieved = self.source.candidates(texts_of(queries), task)
        mined |= self._estimated(retrieved, held_out, trainer, rng, progress)
        progress.update(start + self.groups_a_set - progress.n)  # groups that a set with fewer candidates has spared
        if mined["skipped"]:
            logger.warning("Query set %d (%s) is skipped: %s.", number, task, mined["skipped"])
        return mined

    def _estimated(
        self,
        retrieved: Dataset,
        held_out: Dataset,
        trainer: GroupTrainer,
        rng: np.random.Generator,
        progress: tqdm,
    ) -> dict[str, Any]:
        """The candidates with their utilities, or the reason why the set is skipped."""
        args, num_candidates = self.args, len(retrieved)
        # Their number is not compared with `num_labelled`: they may be labelled in another way later.
        if num_candidates <= args.group_size:
            return {
                "skipped": "too few candidates of other tasks" if num_candidates else "no candidates of other tasks"
            }
        estimates = self.utility_estimator(
            trainer, trainer.tokenize(retrieved), trainer.tokenize(held_out), args, rng, progress.update
        )
        if not math.isfinite(estimates.base_loss):
            return {"skipped": "the upstream model's own loss is not finite"}
        utilities = np.where(np.isfinite(estimates.utilities), estimates.utilities, np.nan)
        estimated = np.flatnonzero(np.isfinite(utilities).any(axis=1))
        return {
            "base_loss": estimates.base_loss,
            "diverged_groups": estimates.num_diverged,
            "skipped": "" if len(estimated) else "every group diverged",
            "candidates": [
                {
                    "id": example["id"],
                    "task": example["task"],
                    "input": example["input"],
                    "answer": example["references"][0],
                    "rank": int(rank),
                    "utility": float(np.nanmean(utilities[rank])),
                    "utilities": utilities[rank].tolist(),
                }
                for rank, example in zip(estimated, retrieved.select(estimated), strict=True)
            ],
        }
