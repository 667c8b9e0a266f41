"""Arguments of an adaptation, with the paper's settings and those of the authors' code."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..training.arguments import ExampleTrainingArguments


@dataclass
class AdaptationArguments(ExampleTrainingArguments):
    """Arguments of [`RetrievalAugmentedAdapter`]; the defaults are the paper's (section 4 of arXiv 2204.07937), but for `gate`.

    [`AdaptationArguments.paper`] is without a gate, too. The paper names neither scheduler nor clipping; the schedule here is constant, as in the authors' code.
    [`AdaptationArguments.authors_code`] gives the settings of that code, which differ from the paper.

    Example:

    ```python
    args = AdaptationArguments(output_dir="adapted", num_retrieved=256)
    args = AdaptationArguments.authors_code(output_dir="adapted", seed=1)
    ```

    Raises:
        ValueError: `num_retrieved` or `upsampling_ratio` is below 1, `select_by` or `gate` is unknown, or `gate_fraction` is no fraction.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate of the adaptation."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Number of passes over the retrieved examples."})
    per_device_train_batch_size: int = field(
        default=4, metadata={"help": "Number of retrieved examples in a batch of one device."}
    )
    per_device_eval_batch_size: int = field(
        default=32, metadata={"help": "Number of inputs in a batch of one device that answers are generated for."}
    )
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Schedule of the learning rate."})
    save_strategy: str = field(
        default="no",
        metadata={"help": "When checkpoints are saved: never unless asked for, for an adaptation is short."},
    )
    num_retrieved: int = field(
        default=512, metadata={"help": "Number of upstream examples to retrieve and learn from, |R| in the paper."}
    )
    upsampling_ratio: float = field(
        default=2.0,
        metadata={
            "help": "Ratio of the examples that are retrieved to those that are learned from, mu in the paper; it counts with a reranker or "
            "`select_by` 'task', which choose |R| among mu x |R|."
        },
    )
    select_by: str = field(
        default="example",
        metadata={
            "help": "Choice among the mu x |R| examples. 'example' takes those that the reranker scores highest, as in the paper; "
            "'task' takes whole upstream tasks, the one with the most candidates (expected by the reranker to help) first, and needs "
            "no reranker.",
            "choices": ["example", "task"],
        },
    )
    rerank: bool = field(
        default=True,
        metadata={
            "help": "Whether the pipeline's reranker, if it has one, scores what dense retrieval finds; --no_rerank leaves it out."
        },
    )
    gate: str = field(
        default="form",
        metadata={
            "help": "When the base model's weights are put back, as found without labels. 'form' puts them back where the answers to the "
            "unlabelled inputs lose their form: options named in the input, length, end, script, repetitions. 'strict' also puts them back "
            "unless the loss on held-out retrieved examples falls; 'off' never does.",
            "choices": ["form", "strict", "off"],
        },
    )
    safety_gate: bool | None = field(
        default=None, metadata={"help": "The name that `gate` had first: true is 'strict', false is 'off'."}
    )
    gate_fraction: float = field(
        default=0.1,
        metadata={"help": "Share of the distinct retrieved examples that the strict gate holds out of training."},
    )

    upstream_adapter: str = field(
        default="continue",
        metadata={
            "help": "What becomes of the adapter of an upstream model that has one. 'continue' trains a copy of it further, which stays one "
            "plain LoRA on the base; 'merge' puts it into the base's weights first, all of which are trained, or a new adapter on them.",
            "choices": ["continue", "merge"],
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_retrieved < 1:
            raise ValueError(f"`num_retrieved` must be at least 1, found {self.num_retrieved}.")
        if not 1 <= self.upsampling_ratio < math.inf:
            raise ValueError(f"`upsampling_ratio` must be at least 1, found {self.upsampling_ratio}.")
        if self.select_by not in ("example", "task"):
            raise ValueError(f"`select_by` must be 'example' or 'task', found {self.select_by!r}.")
        if self.safety_gate is not None:
            warnings.warn(
                f"`safety_gate={self.safety_gate}` is now `gate={_GATE_OF[self.safety_gate]!r}`. Use the new name: the old one goes with the "
                "next release.",
                DeprecationWarning,
                stacklevel=3,
            )
            self.gate, self.safety_gate = _GATE_OF[self.safety_gate], None
        if self.gate not in GATES:
            raise ValueError(f"`gate` must be 'form', 'strict' or 'off', found {self.gate!r}.")
        if self.upstream_adapter not in ("continue", "merge"):
            raise ValueError(f"`upstream_adapter` must be 'continue' or 'merge', found {self.upstream_adapter!r}.")
        if not 0 < self.gate_fraction < 1:
            raise ValueError(f"`gate_fraction` must be between 0 and 1, found {self.gate_fraction}.")

    @classmethod
    def paper(cls, **overrides: Any) -> AdaptationArguments:
        """The paper's settings: learning rate 1e-6, 2 epochs, batches of 4, |R| = 512, and no gate."""
        return cls(**{**PAPER, **overrides})

    @classmethod
    def as_run(cls, **overrides: Any) -> AdaptationArguments:
        """The settings of [`AdaptationArguments.authors_code`], by the name that they had first."""
        return cls.authors_code(**overrides)

    @classmethod
    def authors_code(cls, **overrides: Any) -> AdaptationArguments:
        """The settings of the authors' released code and logged runs."""
        return cls(**{**AUTHORS_CODE, **overrides})


GATES = ("form", "strict", "off")
_GATE_OF = {True: "strict", False: "off"}


def in_todays_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that somebody wrote down, with `gate` in place of `safety_gate`, so that others can be put over them."""
    found = dict(settings)
    if isinstance(found.get("safety_gate"), bool):
        found["gate"] = _GATE_OF[found.pop("safety_gate")]
    return found


PAPER: dict[str, Any] = {"gate": "off"}
"""Settings of the paper that are no defaults."""

AUTHORS_CODE: dict[str, Any] = {
    "learning_rate": 6e-6,
    "max_steps": 128,
    "per_device_train_batch_size": 4,
    "weight_decay": 0.01,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.1,
    "label_smoothing_factor": 0.1,
    "sum_token_loss": True,
    "generation_num_beams": 4,
    "num_retrieved": 512,
    "upsampling_ratio": 2.0,
    "max_input_length": 512,
    "max_target_length": 64,
    "gate": "off",
}
"""Settings of the authors' released code and logged runs."""

AS_RUN = AUTHORS_CODE
"""The same settings, by the name that they had first."""
