"""Arguments of the training of a reranker."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..training.arguments import (
    check_ranges,
    check_sampling,
    check_types,
    refuse_other_evaluation,
    take_bfloat16_on_cpu,
)
from ..training.safe_push import refuse_pickled_pushes


@dataclass
class RerankerTrainingArguments(TrainingArguments):
    """Arguments of [`train_reranker`]; the defaults are those of the authors' code.

    Raises:
        ValueError: `max_length` leaves no room for a pair, a number is out of range, `hub_strategy` would push pickles, or an
            evaluation is asked for that would not be made so.
    """

    learning_rate: float = field(
        default=1e-5, metadata={"help": "Learning rate at the end of the warm-up, its highest."}
    )
    num_train_epochs: float = field(default=5.0, metadata={"help": "Number of passes over the pairs."})
    per_device_train_batch_size: int = field(
        default=64, metadata={"help": "Number of pairs in a batch, on each device."}
    )
    warmup_steps: float = field(
        default=100,
        metadata={
            "help": "Number of steps over which the learning rate rises; a number below 1 is their share of all steps."
        },
    )
    save_strategy: str = field(
        default="no", metadata={"help": "When checkpoints are saved: 'no', 'steps', 'epoch' or 'best'."}
    )
    max_length: int = field(
        default=512, metadata={"help": "Greatest number of tokens of a pair; the longer of its texts is cut first."}
    )
    include_answers: bool = field(
        default=False,
        metadata={"help": "Whether the reranker reads candidates with their answers, or their inputs alone."},
    )
    group_by_query: bool = field(
        default=False,
        metadata={
            "help": "Whether the candidates of a query follow one another, so that a batch can compare them, as the pairwise loss needs."
        },
    )

    def __post_init__(self) -> None:
        check_types(self)
        take_bfloat16_on_cpu(self)
        super().__post_init__()
        refuse_pickled_pushes(self)
        check_ranges(self)
        check_sampling(self)
        refuse_other_evaluation(self)
        if self.max_length < 8:
            raise ValueError(
                f"`max_length` must leave room for two texts, at least 8 tokens, found {self.max_length}."
            )
