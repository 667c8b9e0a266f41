"""Arguments of the mining, with the settings of Algorithm 1 and of the authors' code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from ..training.arguments import check_ranges, check_types


@dataclass
class SupervisionArguments:
    """Arguments of [`mine_supervision`]; the numbers are those of the authors' code.

    The defaults are Algorithm 1 of arXiv 2204.07937 without the faults of that code. [`SupervisionArguments.paper`] is the
    algorithm to the letter, [`SupervisionArguments.as_run`] also weighs losses as the code does.

    Raises:
        ValueError: A number is too small, groups would leave nothing to compare, or a text is no regular expression.
    """

    num_query_sets: int = field(
        default=300, metadata={"help": "Number of query sets to mine, spread evenly over the tasks."}
    )
    num_queries: int = field(default=8, metadata={"help": "|Z_q|: number of queries in a set."})
    num_held_out: int = field(
        default=100, metadata={"help": "|H_q|: number of examples of the task to measure the loss on."}
    )
    num_candidates: int = field(
        default=100, metadata={"help": "|R_Z|: number of candidates of a set, distinct upstream examples."}
    )
    group_size: int = field(
        default=20, metadata={"help": "Number of candidates that the model is fine-tuned on together."}
    )
    num_rounds: int = field(
        default=3, metadata={"help": "Number of rounds; each shuffles the candidates and splits them anew."}
    )
    num_labelled: int = field(
        default=8,
        metadata={"help": "W: number of the best candidates that are positives, and of the worst that are negatives."},
    )
    label_by: str = field(
        default="example",
        metadata={
            "help": "Utility that candidates are labelled by: 'example', each candidate's own (Algorithm 1), or 'task', the mean of "
            "the candidates of its task, which has less noise and suits `select_by` 'task'.",
            "choices": ["example", "task"],
        },
    )
    upsampling_ratio: float = field(
        default=2.0, metadata={"help": "mu: a reranker chooses among mu x |R_Z| retrieved candidates."}
    )
    learning_rate: float = field(
        default=3e-5, metadata={"help": "Learning rate of the fine-tuning on a group, constant (AdamW)."}
    )
    num_train_epochs: int = field(
        default=1, metadata={"help": "Number of passes over a group: 10 steps with the defaults."}
    )
    per_device_train_batch_size: int = field(default=2, metadata={"help": "Number of candidates in a step."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Norm that gradients are clipped to; 0 clips none."})
    max_input_length: int = field(default=512, metadata={"help": "Number of tokens that inputs are cut to."})
    max_target_length: int = field(default=64, metadata={"help": "Number of tokens that answers are cut to."})
    trainable_parameters: str | None = field(
        default=None,
        metadata={
            "help": "Regular expression for the names of the parameters to fine-tune, all by default. '^decoder' (or "
            "'model.decoder') leaves the encoder as it is, whose output of each text is then computed once a set."
        },
    )
    retrieve_own_task: bool = field(
        default=False,
        metadata={
            "help": "Whether all tasks are searched and the queries' own is dropped afterwards, to the letter of Algorithm 1: the "
            "nearest examples are mostly of that task, so that few are left. By default other tasks alone are searched."
        },
    )
    sum_token_loss: bool = field(
        default=False,
        metadata={
            "help": "Whether the held-out loss is summed over the tokens of an answer, as in the authors' code: long answers then "
            "decide. By default it is the mean over an answer's tokens, so that each example counts alike."
        },
    )
    bf16: bool = field(
        default=False, metadata={"help": "Whether to compute in bfloat16; the weights keep their precision."}
    )
    seed: int = field(default=0, metadata={"help": "Seed for drawing query sets and groups."})

    def __post_init__(self) -> None:
        check_types(self)
        check_ranges(self)
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        if not 1 <= self.upsampling_ratio < math.inf:
            raise ValueError(f"`upsampling_ratio` must be at least 1, found {self.upsampling_ratio}.")
        if self.label_by not in ("example", "task"):
            raise ValueError(f"`label_by` must be 'example' or 'task', found {self.label_by!r}.")
        if self.num_candidates < 2 * self.num_labelled:
            raise ValueError(
                f"Expected `num_candidates` to be at least 2 x `num_labelled` = {2 * self.num_labelled}, so that no candidate "
                f"is both positive and negative, found {self.num_candidates}."
            )
        if self.num_candidates <= self.group_size:
            raise ValueError(
                f"Expected `group_size` to be less than `num_candidates`, found {self.group_size} and "
                f"{self.num_candidates}: with one group, all candidates would get the same loss."
            )
        if self.trainable_parameters is not None:
            try:
                re.compile(self.trainable_parameters)
            except re.error as error:
                raise ValueError(
                    f"Expected `trainable_parameters` to be a regular expression, found {self.trainable_parameters!r}: "
                    f"{error}."
                ) from error

    @classmethod
    def paper(cls, **overrides: Any) -> SupervisionArguments:
        """The settings of Algorithm 1 to the letter: examples are retrieved, then those of the queries' own task are dropped.

        Args:
            overrides: Settings that differ from these.
        """
        return cls(**{**ALGORITHM_1, **overrides})

    @classmethod
    def as_run(cls, **overrides: Any) -> SupervisionArguments:
        """The settings of the authors' code: Algorithm 1 to the letter, and losses summed over tokens.

        Args:
            overrides: Settings that differ from these.
        """
        return cls(**{**SUPERVISION_AS_RUN, **overrides})


ALGORITHM_1: dict[str, Any] = {"retrieve_own_task": True}
"""Settings of Algorithm 1 to the letter that are not the defaults."""

SUPERVISION_AS_RUN: dict[str, Any] = {**ALGORITHM_1, "sum_token_loss": True}
"""Settings of the authors' code that are not the defaults."""

_AT_LEAST_ONE = (
    "num_query_sets",
    "num_queries",
    "num_held_out",
    "group_size",
    "num_rounds",
    "num_labelled",
    "num_train_epochs",
    "per_device_train_batch_size",
    "max_input_length",
    "max_target_length",
)
