"""Arguments of training, adaptation, mining and the reranker: dataclasses, most of them over Hugging Face's own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from transformers import Seq2SeqTrainingArguments, TrainingArguments
from transformers.trainer_utils import HubStrategy


@dataclass
class ExampleTrainingArguments(Seq2SeqTrainingArguments):
    """Arguments of [`ExampleTrainer`]: those of any `Seq2SeqTrainer`, and how text becomes tokens.

    Raises:
        ValueError: a length or a number is too small, arguments contradict one another, no text would be generated to
            score (`predict_with_generate=False`), or `hub_strategy` would push pickles.
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
    token_budget: int | None = field(
        default=None,
        metadata={
            "help": "Tokens a step and device, input and answer, padding included, in place of `per_device_train_batch_size`: "
            "batches are made of examples of like lengths, and each step counts alike, however many they are."
        },
    )
    mixing_temperature: float = field(
        default=1.0,
        metadata={
            "help": "T: tasks are mixed in proportion to size ** (1 / T). 1: in proportion to size, each example once an epoch; "
            "larger: more evenly, small tasks several times and large ones in part, others each epoch."
        },
    )
    max_examples_per_task: int | None = field(
        default=None,
        metadata={
            "help": "K: the size of a larger task counts as so much, and an epoch takes so many of it, others each time."
        },
    )
    drop_long_targets: bool = field(
        default=False,
        metadata={
            "help": "Leave examples out of training whose answer exceeds `max_target_length`, in place of cutting it."
        },
    )
    pad_to_multiple_of: int | None = field(
        default=None,
        metadata={
            "help": "Pad inputs and answers to a multiple of so many tokens: 8 suits tensor cores, 64 leaves `torch_compile` few "
            "shapes."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        _refuse_pickled_pushes(self)
        for name in ("max_input_length", "max_target_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1 token, found {getattr(self, name)}.")
        for name in ("token_budget", "max_examples_per_task", "pad_to_multiple_of"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        if not self.mixing_temperature >= 1:
            raise ValueError(
                f"`mixing_temperature` must be at least 1, in proportion to size, found {self.mixing_temperature}."
            )
        if self.mixes:
            self._refuse_other_batches()
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

    @property
    def mixes(self) -> bool:
        """Whether batches come from a [`MixtureBatchSampler`] and not from the sampler of the base class."""
        limited = self.token_budget is not None or self.max_examples_per_task is not None
        return limited or self.mixing_temperature != 1

    def _refuse_other_batches(self) -> None:
        others = {
            "train_sampling_strategy": self.train_sampling_strategy != "random",
            "dataloader_drop_last": self.dataloader_drop_last,
            "accelerator_config.split_batches": self.accelerator_config.split_batches,
            "accelerator_config.dispatch_batches": self.accelerator_config.dispatch_batches,
            "auto_find_batch_size": self.auto_find_batch_size and self.token_budget is not None,
        }
        if found := [name for name, is_set in others.items() if is_set]:
            raise ValueError(
                "`token_budget`, `mixing_temperature` and `max_examples_per_task` make batches of their own, so that "
                f"`{'`, `'.join(found)}` would be ignored. Leave one or the other at its default."
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
        ValueError: `num_retrieved` or `upsampling_ratio` is below 1, `select_by` is unknown, or `gate_fraction` is no fraction.
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
        default=2.0,
        metadata={
            "help": "mu: with a reranker or `select_by` 'task', mu x |R| examples are retrieved to choose from."
        },
    )
    select_by: str = field(
        default="example",
        metadata={
            "help": "What is chosen among the mu x |R|: 'example': those that the reranker scores highest, as in the paper; "
            "'task': whole upstream tasks, that with the most candidates (expected by the reranker to help) first. "
            "'task' needs no reranker.",
            "choices": ["example", "task"],
        },
    )
    rerank: bool = field(
        default=True,
        metadata={
            "help": "Let the pipeline's reranker, if it has one, score what dense retrieval finds. --no_rerank: without it."
        },
    )
    safety_gate: bool = field(
        default=False,
        metadata={
            "help": "Put the base model's weights back unless the loss on held-out retrieved examples falls and the answers to the "
            "unlabelled inputs do not collapse. Needs no labels."
        },
    )
    gate_fraction: float = field(
        default=0.1,
        metadata={"help": "Share of the distinct retrieved examples that the safety gate holds out of training."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_retrieved < 1:
            raise ValueError(f"`num_retrieved` must be at least 1, found {self.num_retrieved}.")
        if self.upsampling_ratio < 1:
            raise ValueError(f"`upsampling_ratio` must be at least 1, found {self.upsampling_ratio}.")
        if self.select_by not in ("example", "task"):
            raise ValueError(f"`select_by` must be 'example' or 'task', found {self.select_by!r}.")
        if not 0 < self.gate_fraction < 1:
            raise ValueError(f"`gate_fraction` must be between 0 and 1, found {self.gate_fraction}.")

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
        for name in ("num_query_sets", "num_queries", "num_held_out", "group_size", "num_rounds", "num_labelled"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        for name in ("num_train_epochs", "per_device_train_batch_size", "max_input_length", "max_target_length"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, found {getattr(self, name)}.")
        if self.upsampling_ratio < 1:
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
        _refuse_pickled_pushes(self)
        if self.max_length < 8:
            raise ValueError(
                f"`max_length` must leave room for two texts, at least 8 tokens, found {self.max_length}."
            )


@dataclass
class MixtureArguments:
    """Settings of [`prepare_mixture`]; the defaults are the paper's, and the authors' where it is silent.

    Raises:
        ValueError: a number is too small, or `on_overlap` is none of its three values.
    """

    max_examples_per_task: int = field(default=50_000, metadata={"help": "Cap on the training examples of a task."})
    max_dev_examples_per_task: int = field(
        default=500,
        metadata={"help": "Examples of a task to hold out, of rows of their own; at most a tenth of the rows."},
    )
    templates_per_example: int | None = field(
        default=None,
        metadata={
            "help": "Templates that each row is rendered by. By default, as the authors: 10 in tasks of up to 5,000 rows, 7 up "
            "to 10,000, 5 up to 50,000, else 1."
        },
    )
    exact_match_only: bool = field(
        default=False, metadata={"help": "Only templates whose answers an exact match can judge, by their metrics."}
    )
    original_task_only: bool = field(
        default=False, metadata={"help": "Only templates that ask for what the data set was made for."}
    )
    truncate: bool = field(
        default=True, metadata={"help": "Cut each value of a row to 2,048 characters, as PromptSource does."}
    )
    ngram_size: int = field(
        default=13, metadata={"help": "An example that shares so many words in a row with a target overlaps with it."}
    )
    on_overlap: str = field(
        default="drop",
        metadata={"help": "What to do with examples that overlap with a target: drop, keep (and report) or fail."},
    )
    strict: bool = field(
        default=False, metadata={"help": "Fail where a template fails on a row, in place of leaving that row out."}
    )
    shard_size: int = field(default=100_000, metadata={"help": "Examples a parquet file."})
    seed: int = field(default=0, metadata={"help": "Of the choice of rows and templates."})

    def __post_init__(self) -> None:
        for name in ("max_examples_per_task", "templates_per_example", "shard_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, found {value}.")
        if self.max_dev_examples_per_task < 0:
            raise ValueError(
                f"`max_dev_examples_per_task` must not be negative, found {self.max_dev_examples_per_task}."
            )
        if self.ngram_size < 2:
            raise ValueError(f"`ngram_size` must be at least 2 words, found {self.ngram_size}.")
        if self.on_overlap not in ("drop", "keep", "fail"):
            raise ValueError(f"`on_overlap` must be 'drop', 'keep' or 'fail', found {self.on_overlap!r}.")


def _refuse_pickled_pushes(args: TrainingArguments) -> None:
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        raise ValueError(
            f"`hub_strategy` must be 'end' or 'every_save', found {args.hub_strategy.value!r}: whole checkpoints hold the state "
            "of the optimizer as pickles, which are not published."
        )
