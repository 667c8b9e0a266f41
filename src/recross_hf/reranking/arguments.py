"""Arguments of training a reranker."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from ..training.arguments import check_ranges, refuse_other_evaluation
from ..training.safe_push import refuse_pickled_pushes


@dataclass
class RerankerTrainingArguments(TrainingArguments):
    """Arguments of [`train_reranker`]; the defaults are those of the authors' code.

    Raises:
        ValueError: `max_length` leaves no room for a pair, or `hub_strategy` would push pickles.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=5.0, metadata={"help": "Passes over the pairs."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Pairs a step and device."})
    warmup_steps: float = field(default=100, metadata={"help": "Steps of warm-up; below 1: their share of all steps."})
    save_strategy: str = field(default="no", metadata={"help": "Checkpoints: none unless asked for."})
    max_length: int = field(default=512, metadata={"help": "Tokens a pair, cut on the longer side first."})
    include_answers: bool = field(
        default=False, metadata={"help": "Show the candidates' answers to the reranker, and not their inputs alone."}
    )
    group_by_query: bool = field(
        default=False,
        metadata={"help": "All candidates of a query one after another, so that a batch can compare them."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_pickled_pushes(self)
        check_ranges(self)
        refuse_other_evaluation(self)
        if self.max_length < 8:
            raise ValueError(
                f"`max_length` must leave room for two texts, at least 8 tokens, found {self.max_length}."
            )
