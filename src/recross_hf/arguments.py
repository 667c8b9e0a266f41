"""Arguments of training and adaptation: dataclasses over `Seq2SeqTrainingArguments`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from transformers import Seq2SeqTrainingArguments


@dataclass
class ExampleTrainingArguments(Seq2SeqTrainingArguments):
    """Arguments of [`ExampleTrainer`]: those of any `Seq2SeqTrainer`, and how text becomes tokens.

    Raises:
        ValueError: a length is not positive, or no text would be generated to score (`predict_with_generate=False`).
    """

    predict_with_generate: bool = field(
        default=True, metadata={"help": "Generate answers in `evaluate` and `predict`; SoftEM is computed from them."}
    )
    max_input_length: int = field(
        default=512, metadata={"help": "Inputs are cut to this many tokens, or to what the model takes."}
    )
    max_target_length: int = field(
        default=64, metadata={"help": "Answers are cut to this many tokens, in training and in generation."}
    )
    sum_token_loss: bool = field(
        default=False,
        metadata={
            "help": "Sum the loss over the tokens of a batch, as the authors' code does, in place of its mean. "
            "Long answers then weigh more."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_input_length", "max_target_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1 token, found {getattr(self, name)}.")
        for name in ("bf16_full_eval", "fp16_full_eval"):
            if getattr(self, name):
                raise ValueError(
                    f"`{name}` would leave the model in half precision, and a training after an evaluation in it. Use "
                    f"`{name[:4]}`, which computes in half precision and keeps the weights."
                )
        if self.generation_max_length is not None:
            raise ValueError(
                f"`generation_max_length` is not used, found {self.generation_max_length}: `max_target_length` says how many "
                "tokens an answer may have, in training and in generation."
            )
        if not self.predict_with_generate:
            raise ValueError(
                "`predict_with_generate` must be True: SoftEM and exact match are computed from generated text. "
                "To skip scoring, leave `eval_strategy` at 'no' and do not call `evaluate`."
            )


@dataclass
class AdaptationArguments(ExampleTrainingArguments):
    """Arguments of [`RetrievalAugmentedAdapter`]; the defaults are the paper's (section 4 of arXiv 2204.07937).

    The paper names neither scheduler nor clipping; the schedule here is constant, as in the authors' code.
    [`AdaptationArguments.as_run`] gives the settings of that code, which differ from the paper.

    Example:

    ```python
    args = AdaptationArguments(output_dir="adapted", num_retrieved=256)
    args = AdaptationArguments.as_run(output_dir="adapted", seed=1)
    ```

    Raises:
        ValueError: `num_retrieved` or `upsampling_ratio` is below 1.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Initial learning rate of the adaptation."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the retrieved examples."})
    per_device_train_batch_size: int = field(default=4, metadata={"help": "Retrieved examples a step and device."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Inputs a generation step and device."})
    lr_scheduler_type: str = field(default="constant", metadata={"help": "Learning rate schedule."})
    save_strategy: str = field(
        default="no", metadata={"help": "Checkpoints during an adaptation, which is short: none unless asked for."}
    )
    num_retrieved: int = field(default=512, metadata={"help": "|R|: how many upstream examples to learn from."})
    upsampling_ratio: float = field(
        default=2.0, metadata={"help": "mu: with a reranker, mu x |R| examples are retrieved for it to choose from."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_retrieved < 1:
            raise ValueError(f"`num_retrieved` must be at least 1, found {self.num_retrieved}.")
        if self.upsampling_ratio < 1:
            raise ValueError(f"`upsampling_ratio` must be at least 1, found {self.upsampling_ratio}.")

    @classmethod
    def paper(cls, **overrides: Any) -> AdaptationArguments:
        """The paper's settings: learning rate 1e-6, 2 epochs, batches of 4, |R| = 512."""
        return cls(**overrides)

    @classmethod
    def as_run(cls, **overrides: Any) -> AdaptationArguments:
        """The settings of the authors' released code and logged runs."""
        return cls(**{**AS_RUN, **overrides})


AS_RUN: dict[str, Any] = {
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
}
