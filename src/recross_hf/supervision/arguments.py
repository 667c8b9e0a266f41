"""Arguments of mining, with Algorithm 1's settings and those of the authors' code."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from ..training.arguments import check_ranges


@dataclass
class SupervisionArguments:
    """Arguments of [`mine_supervision`]; the numbers are those of the authors' code.

    The defaults are Algorithm 1 of arXiv 2204.07937 without the faults of that code. [`SupervisionArguments.paper`] is the
    algorithm to the letter, [`SupervisionArguments.as_run`] also weighs losses as the code does.

    Raises:
        ValueError: a number is too small, groups would leave nothing to compare, or the regular expression is none.
    """

    num_query_sets: int = field(default=300, metadata={"help": "Query sets to mine, spread evenly over the tasks."})
    num_queries: int = field(default=8, metadata={"help": "|Z_q|: queries a set."})
    num_held_out: int = field(default=100, metadata={"help": "|H_q|: examples of the task to measure the loss on."})
    num_candidates: int = field(default=100, metadata={"help": "|R_Z|: distinct upstream examples to judge a set."})
    group_size: int = field(default=20, metadata={"help": "Candidates that the model is fine-tuned on together."})
    num_rounds: int = field(default=3, metadata={"help": "How often the candidates are shuffled and split anew."})
    num_labelled: int = field(
        default=8, metadata={"help": "W: so many of the best candidates are positives, of the worst negatives."}
    )
    label_by: str = field(
        default="example",
        metadata={
            "help": "What is best and worst: 'example', the candidates, each by its own utility (Algorithm 1); 'task', those of the "
            "tasks whose candidates help most and least on average: less noise, and what `select_by` 'task' asks for.",
            "choices": ["example", "task"],
        },
    )
    upsampling_ratio: float = field(
        default=2.0, metadata={"help": "mu: with a reranker, mu x |R_Z| are retrieved for it to choose from."}
    )
    learning_rate: float = field(default=3e-5, metadata={"help": "Learning rate on a group, constant (AdamW)."})
    num_train_epochs: int = field(default=1, metadata={"help": "Passes over a group: 10 steps with the defaults."})
    per_device_train_batch_size: int = field(default=2, metadata={"help": "Candidates a step."})
    max_grad_norm: float = field(default=1.0, metadata={"help": "Gradients are clipped to this norm; 0: not at all."})
    max_input_length: int = field(default=512, metadata={"help": "Inputs are cut to so many tokens."})
    max_target_length: int = field(default=64, metadata={"help": "Answers are cut to so many tokens."})
    trainable_parameters: str | None = field(
        default=None,
        metadata={
            "help": "Regular expression for the names of the parameters to fine-tune, all by default. '^decoder' (or "
            "'model.decoder') leaves the encoder as it is; what it makes of each text is then computed once a set."
        },
    )
    retrieve_own_task: bool = field(
        default=False,
        metadata={
            "help": "Retrieve from all tasks and then drop the queries' own, to the letter of Algorithm 1: the nearest are "
            "mostly of that task, so that few are left. By default other tasks alone are searched."
        },
    )
    sum_token_loss: bool = field(
        default=False,
        metadata={
            "help": "Sum the held-out loss over the tokens of an answer, as the authors' code does: long answers then decide. "
            "By default the mean over an answer's tokens, so that each example counts alike."
        },
    )
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16; the weights keep their precision."})
    seed: int = field(default=0, metadata={"help": "Of the query sets and the groups."})

    def __post_init__(self) -> None:
        check_ranges(self)
        for name in ("num_query_sets", "num_queries", "num_held_out", "group_size", "num_rounds", "num_labelled"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        for name in ("num_train_epochs", "per_device_train_batch_size", "max_input_length", "max_target_length"):
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
        """Algorithm 1 to the letter: retrieve, then drop the queries' own task."""
        return cls(**{**ALGORITHM_1, **overrides})

    @classmethod
    def as_run(cls, **overrides: Any) -> SupervisionArguments:
        """As the authors' code: to the letter, and with losses summed over tokens."""
        return cls(**{**SUPERVISION_AS_RUN, **overrides})


ALGORITHM_1: dict[str, Any] = {"retrieve_own_task": True}
SUPERVISION_AS_RUN: dict[str, Any] = {**ALGORITHM_1, "sum_token_loss": True}
