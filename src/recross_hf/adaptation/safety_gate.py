"""The safety gate: evidence, without labels, that an adapted model should not take the place of its base."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..core.batching import on_device, token_budget_batches
from ..core.distributed import agreed
from ..data.conversations import texts_of
from ..models.base import vocabulary_size
from ..models.collators import Batch
from ..models.generation import Answer
from ..models.heads import mean_token_loss
from ..models.modes import evaluating
from ..models.tokenization import TokenizedExamples
from ..training.trainer import ExampleTrainer
from .answer_form import AnswerForm, gate_inputs, lost_form
from .arguments import AdaptationArguments
from .named_options import named_options
from .weights_before import WeightsBefore

logger = logging.getLogger(__name__)

FEWEST_HELD_OUT = 5
"""Number of held-out examples from which a loss can tell: of four, all fall by chance in one of 16 cases."""

AnswerStats = AnswerForm
"""What is said of answers, by the name that it had first."""


@dataclass(frozen=True)
class GateEvidence:
    """What the gate compares of two models.

    Args:
        loss: Mean loss over the tokens of the held-out retrieved examples, without label smoothing; None for `gate="form"`, which holds
            none out.
        answers: The form of the answers to the unlabelled inputs.
    """

    loss: float | None
    answers: AnswerForm


@dataclass(frozen=True)
class GateVerdict:
    """Whether the adapted model was kept, or the base put back, and why.

    Args:
        kept: Whether the weights are the trained ones; otherwise they are those from before the adaptation.
        reason: Sentences for people.
        num_held_out: Number of distinct retrieved examples that were not trained on.
        base, adapted: Evidence of the two models that were compared.
        level: What was asked of the adapted model: "form", or "strict".
        lost_form: Sentences that say what form of the base's answers those of the adapted model do not have.
    """

    kept: bool
    reason: str
    num_held_out: int
    base: GateEvidence
    adapted: GateEvidence
    level: str = "strict"
    lost_form: Sequence[str] = ()

    @classmethod
    def on(
        cls, base: GateEvidence, adapted: GateEvidence, lost: Sequence[str], num_held_out: int | None = None
    ) -> GateVerdict:
        """Keeps the adapted model if its answers have the base's form and, where examples were held out, the loss on them fell.

        Args:
            lost: Forms that were lost, as [`lost_form`][recross_hf.adaptation.answer_form.lost_form] says them.
            num_held_out: Number of held-out examples; None where only the form counts.
        """
        answers, form = adapted.answers.num_answers, " ".join(lost)
        held = "The answers to the inputs kept their form"
        if num_held_out is None:
            reason = form or (f"{held}." if answers > 1 else "The answer to the input kept its form.")
            return cls(not lost, reason, 0, base, adapted, "form", tuple(lost))
        assert base.loss is not None and adapted.loss is not None
        # So that it is not kept where its loss is not a number.
        falls = adapted.loss < base.loss
        losses = f"loss on {num_held_out} held-out retrieved examples went from {base.loss:.4f} to {adapted.loss:.4f}"
        if falls and not lost:
            reason = f"The {losses}, and {held[0].lower()}{held[1:]}."
        elif falls:
            reason = f"{form} The {losses}, all the same."
        else:
            reason = f"The {losses}, which is no improvement.{f' {form}' if lost else ''}"
        if num_held_out < FEWEST_HELD_OUT:
            reason += " So few examples do not tell a change of the loss from chance."
        return cls(falls and not lost, reason, num_held_out, base, adapted, "strict", tuple(lost))


class SafetyGate:
    """Compares a model before and after an adaptation, and puts the weights back that it had before unless it is fit to stay.

    The gate is made before the adaptation: it remembers the weights that will be trained, and takes the base's evidence.

    Args:
        trainer: Trainer of the model, whose weights are whole in each process.
        queries: Unlabelled inputs, with the column `input` and perhaps `choices`.
        held_out: Labelled examples to measure the loss on; None where only the form of the answers counts.
        source: Model that the trainer's was copied from; None where it is gone.

    Attributes:
        answers: Answers of the base, and of what [`decide`] left, by the inputs that were answered.
    """

    def __init__(
        self, trainer: ExampleTrainer, queries: Dataset, held_out: Dataset | None, source: PreTrainedModel | None
    ) -> None:
        self._trainer, self._held_out = trainer, held_out
        self._inputs = gate_inputs(texts_of(queries))
        choices = (
            dict(zip(texts_of(queries), queries["choices"][:], strict=True))
            if "choices" in queries.column_names
            else {}
        )
        self._options = [named_options(text, choices.get(text) or ()) for text in self._inputs]
        self._before = WeightsBefore(trainer.model, source)
        self._loss, self._base = self._loss_now(), trainer.answers_with_ends(self._inputs)
        self.answers: dict[str, tuple[str, str]] = {}

    def decide(self) -> GateVerdict:
        """Says whether the adapted model is kept, as the main process finds; where it is not, its weights are the base's again.

        Raises:
            RuntimeError: It is not kept, and the model that holds the base's weights was changed.
        """
        loss, adapted = self._loss_now(), self._trainer.answers_with_ends(self._inputs)
        before, after = self._evidence(self._loss, self._base), self._evidence(loss, adapted)
        lost = lost_form(self._inputs, self._base, adapted, self._options)
        verdict = GateVerdict.on(before, after, lost, None if self._held_out is None else len(self._held_out))
        verdict = agreed(lambda: verdict)
        if not verdict.kept:
            self._before.put_back()
            logger.warning("The base model's weights were put back. %s", verdict.reason)
        self.answers = {
            text: (base.text, new.text if verdict.kept else base.text)
            for text, base, new in zip(self._inputs, self._base, adapted, strict=True)
        }
        return verdict

    def _evidence(self, loss: float | None, answers: Sequence[Answer]) -> GateEvidence:
        return GateEvidence(loss, AnswerForm.of(answers, self._options))

    def _loss_now(self) -> float | None:
        if self._held_out is None:
            return None
        trainer = self._trainer
        with trainer.accelerator.autocast():
            return token_loss(trainer.model, trainer.tokenize(self._held_out), trainer.data_collator)


def level_in_force(trainer: ExampleTrainer) -> str:
    """The gate that a trainer's arguments ask for; where the weights are spread over devices, "form" becomes "off", with a warning.

    Raises:
        ValueError: "strict" is asked for there.
    """
    arguments: Any = trainer.args
    level: str = arguments.gate
    if level == "off" or not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return level
    if level == "strict":
        raise ValueError(
            "Expected whole weights in each process for `gate='strict'`, which puts them back, found them spread over devices by FSDP or "
            "DeepSpeed. Adapt with `peft_config` under plain data parallelism, or use `gate='off'`."
        )
    _say_there_is_no_gate()
    return "off"


@lru_cache
def _say_there_is_no_gate() -> None:
    logger.warning(
        "The safety gate is off: it needs whole weights in each process to put them back, and FSDP or DeepSpeed spread them over devices. "
        "Compare the answers before and after by hand; `gate='off'` says that this is meant."
    )


def split(level: str, retrieved: Dataset, args: AdaptationArguments) -> tuple[Dataset, Dataset | None]:
    """The examples to train on, and those that the strict gate holds out of them."""
    if level != "strict":
        return retrieved, None
    return hold_out(retrieved, args.gate_fraction, args.seed if args.data_seed is None else args.data_seed)


def hold_out(retrieved: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Retrieved examples to train on, and distinct ones to measure the loss on.

    An example that was retrieved several times is held out with all its repetitions, and so is one with the same input; otherwise the
    loss would fall by remembering.

    Args:
        fraction: Share of the distinct inputs that is held out; at least one is.

    Returns:
        The examples to train on, and the held-out ones.

    Raises:
        ValueError: All examples have the same input.
    """
    inputs = retrieved["input"][:]
    distinct = list(dict.fromkeys(inputs))
    if len(distinct) < 2:
        raise ValueError(
            f"Expected two distinct retrieved examples or more, one of them for the safety gate, found {len(distinct)}. "
            "Raise `num_retrieved`, or use `gate='form'`."
        )
    number = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    chosen = {distinct[place] for place in np.random.default_rng(seed).choice(len(distinct), number, replace=False)}
    first = {text: row for row, text in reversed([*enumerate(inputs)])}
    kept = [row for row, text in enumerate(inputs) if text not in chosen]
    return retrieved.select(kept), retrieved.select(sorted(first[text] for text in chosen))


@torch.inference_mode()
def token_loss(
    model: PreTrainedModel,
    examples: TokenizedExamples,
    collate: Callable[[list[dict[str, Any]]], Batch],
    *,
    token_budget: int = 2048,
) -> float:
    """The mean loss over all tokens of the answers; dropout is off.

    Args:
        collate: Collator that makes batches of items, as in training.
        token_budget: Number of tokens in a batch, input and answer, padding included.
    """
    lengths = (examples.input_lengths + examples.target_lengths).tolist()
    losses, counts = [], []
    with evaluating(model):
        of_answers = [vocabulary_size(model) * int(length) for length in examples.target_lengths]
        for rows in token_budget_batches(lengths, token_budget, logits=of_answers):
            items = collate([examples[row] for row in rows])
            counts.append(int((items["labels"] != -100).sum()))
            losses.append(mean_token_loss(model, on_device(items, model.device)))
    # The one moment when the host waits for the device, which may have no float64 (Apple's).
    return float(np.average(torch.stack(losses).cpu().double().numpy(), weights=counts))
