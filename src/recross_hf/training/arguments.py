"""Arguments of a training on examples, and checks of those that it shares with other trainings."""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, field, fields
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from .safe_push import refuse_pickled_pushes


@dataclass
class ExampleTrainingArguments(Seq2SeqTrainingArguments):
    """Arguments of [`ExampleTrainer`]: those of any `Seq2SeqTrainer`, and how text becomes tokens.

    Raises:
        TypeError: A number, or a yes or no, is given as text or as something else.
        ValueError: A length or a number is too small, arguments contradict one another, no text would be generated to
            score (`predict_with_generate=False`), or `hub_strategy` would push pickles.
    """

    gradient_accumulation_steps: int = field(
        default=1,
        metadata={
            "help": "Number of batches that a process sees in a step. The mean losses of all batches of a step, in all processes, are weighed by "
            "their tokens, so that 4 batches of 4 are as one of 16; with `sum_token_loss`, their sums are averaged, as in the authors' code."
        },
    )
    predict_with_generate: bool = field(
        default=True,
        metadata={"help": "Whether answers are generated in `evaluate` and `predict`; SoftEM is computed from them."},
    )
    max_input_length: int = field(
        default=512, metadata={"help": "Number of tokens that inputs are cut to; fewer, where the model takes fewer."}
    )
    max_target_length: int = field(
        default=64, metadata={"help": "Number of tokens that answers are cut to, in training and in generation."}
    )
    sum_token_loss: bool = field(
        default=False,
        metadata={
            "help": "Whether the loss is summed over the tokens of a batch, as in the authors' code, in place of its mean. "
            "Long answers then weigh more."
        },
    )
    token_budget: int | None = field(
        default=None,
        metadata={
            "help": "Number of tokens in a batch of one device, input and answer, padding included, in place of "
            "`per_device_train_batch_size`: batches are made of examples of like lengths, and each step counts alike, however many "
            "examples it has."
        },
    )
    mixing_temperature: float = field(
        default=1.0,
        metadata={
            "help": "Temperature T of the mixture: tasks are mixed in proportion to size ** (1 / T). At 1 each example comes once an epoch; "
            "the larger T, the more evenly tasks are mixed: small ones come several times, and of large ones other parts each epoch."
        },
    )
    max_examples_per_task: int | None = field(
        default=None,
        metadata={
            "help": "Number K of examples that a larger task counts as; an epoch takes so many of it, others each time."
        },
    )
    drop_long_targets: bool = field(
        default=False,
        metadata={
            "help": "Whether examples whose answer exceeds `max_target_length` are left out of training, in place of cutting it."
        },
    )
    pad_to_multiple_of: int | None = field(
        default=None,
        metadata={
            "help": "Number of tokens that padded inputs and answers are a multiple of: 8 suits tensor cores, 64 leaves `torch_compile` few "
            "shapes."
        },
    )

    def __post_init__(self) -> None:
        check_types(self)
        take_bfloat16_on_cpu(self)
        super().__post_init__()
        refuse_pickled_pushes(self)
        check_ranges(self)
        check_sampling(self)
        if self.max_steps == 0:
            raise ValueError(
                "`max_steps` must be at least 1, or -1 for `num_train_epochs`, found 0, for which the base class trains whole epochs. "
                "Set `num_train_epochs=0` to train nothing."
            )
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
        refuse_other_evaluation(self)
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
        loading: Any = self.accelerator_config  # an object by now, whatever was passed
        others = {
            "train_sampling_strategy": self.train_sampling_strategy != "random",
            "dataloader_drop_last": self.dataloader_drop_last,
            "accelerator_config.split_batches": loading.split_batches,
            "accelerator_config.dispatch_batches": loading.dispatch_batches,
            "auto_find_batch_size": self.auto_find_batch_size and self.token_budget is not None,
        }
        if found := [name for name, is_set in others.items() if is_set]:
            raise ValueError(
                "`token_budget`, `mixing_temperature` and `max_examples_per_task` make batches of their own, so that "
                f"`{'`, `'.join(found)}` would be ignored. Leave one or the other at its default."
            )


_SAMPLING = ("random", "sequential", "group_by_length", "batch_rebalance")
_KIND_OF: dict[str, type] = {
    text: kind for kind in (bool, int, float) for text in (kind.__name__, str(kind), f"{kind.__name__} | None")
}
_OF_THE_BASE = {known.name for known in fields(Seq2SeqTrainingArguments)}
_KINDS: dict[type, type] = {int: Integral, float: Real}
# The base classes take any number, and a training that they spoil ends without an error.
_LEAST_AND_MOST: dict[str, tuple[float, float]] = {
    "learning_rate": (0, math.inf),
    "num_train_epochs": (0, math.inf),
    "per_device_train_batch_size": (1, math.inf),
    "per_device_eval_batch_size": (1, math.inf),
    "gradient_accumulation_steps": (1, math.inf),
    "generation_num_beams": (1, math.inf),
    "max_steps": (-1, math.inf),
    "warmup_steps": (0, math.inf),
    "weight_decay": (0, math.inf),
    "max_grad_norm": (0, math.inf),
    "label_smoothing_factor": (0, 1),
    "adam_beta1": (0, 1),
    "adam_beta2": (0, 1),
    "adam_epsilon": (0, math.inf),
    "seed": (0, 2**32 - 1),
}


def check_types(args: Any) -> None:
    """Refuses text where a number or a yes or no belongs, such as "no", which would count as yes; NumPy's numbers become Python's.

    Raises:
        TypeError: A field has a value of another type.
    """
    for known in fields(args):
        kind = _KIND_OF.get(str(known.type))
        value: Any = getattr(args, known.name)
        # `HfArgumentParser` rewrites types: `int | None` becomes `int`, and `str | bool` becomes `bool`.
        may_lack = known.default is None or known.name in _OF_THE_BASE - _LEAST_AND_MOST.keys()
        if (
            kind is None
            or isinstance(known.default, str)
            or (value is None and may_lack)
            or (kind is bool and not isinstance(value, str))
        ):
            continue
        if kind is not bool and isinstance(value, _KINDS[kind]) and not isinstance(value, bool | np.bool_):
            number: Any = value
            setattr(args, known.name, int(number) if isinstance(number, Integral) else float(number))
            continue
        what = {bool: "True or False", int: "a whole number", float: "a number"}[kind]
        raise TypeError(
            f"`{known.name}` must be {what}, found {value!r}.{' Write it without quotes.' * isinstance(value, str)}"
        )


def take_bfloat16_on_cpu(args: TrainingArguments) -> None:
    """Takes `bf16` where a CPU is all that there is; the base class wants `use_cpu` beside it, and does not name that flag."""
    if args.bf16 and not torch.accelerator.is_available():
        args.use_cpu = True


def check_ranges(args: Any) -> None:
    """Refuses numbers out of their range among the fields of a dataclass of arguments.

    Raises:
        ValueError: A number is out of its range, or not finite.
    """
    for known in fields(args):
        value = getattr(args, known.name)
        if known.name not in _LEAST_AND_MOST or value is None:
            continue
        least, most = _LEAST_AND_MOST[known.name]
        if not (least <= value <= most) or math.isinf(value):
            span = (
                f"a finite number of at least {least}"
                if not math.isfinite(value)
                else f"at least {least}"
                if math.isinf(most)
                else f"from {least} to {most}"
            )
            default = known.default if known.default is not MISSING else "another number"
            raise ValueError(f"`{known.name}` must be {span}, found {value}. The default is {default}.")


def check_sampling(args: TrainingArguments) -> None:
    """Refuses a strategy of sampling that there is not, which the base class would take for "random".

    Raises:
        ValueError: There is no such strategy.
    """
    if args.train_sampling_strategy not in _SAMPLING:
        raise ValueError(
            f"`train_sampling_strategy` must be one of {', '.join(map(repr, _SAMPLING))}, found {args.train_sampling_strategy!r}."
        )


def refuse_other_evaluation(args: TrainingArguments) -> None:
    """Refuses arguments of evaluation that a scoring of whole sets of texts would ignore, or fail by after the training.

    Raises:
        ValueError: Such an argument is set.
    """
    asked = {
        "eval_do_concat_batches": not args.eval_do_concat_batches,
        "batch_eval_metrics": args.batch_eval_metrics,
        "include_for_metrics": bool(args.include_for_metrics),
        "eval_use_gather_object": args.eval_use_gather_object,
    }
    if found := [name for name, is_set in asked.items() if is_set]:
        raise ValueError(
            f"`{'`, `'.join(found)}` cannot be kept here: sets are scored as a whole, from texts in the order of the data. Leave "
            "them at their defaults."
        )
