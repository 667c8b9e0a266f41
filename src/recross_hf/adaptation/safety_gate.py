"""The safety gate: evidence, without labels, that an adapted model should not take the place of its base."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..core.batching import on_device, token_budget_batches
from ..core.distributed import agreed
from ..models.collators import Batch
from ..models.heads import mean_token_loss
from ..models.modes import evaluating
from ..models.tokenization import TokenizedExamples
from ..training.trainer import ExampleTrainer

logger = logging.getLogger(__name__)

FEWEST_ANSWERS = 8
"""Number of answers below which it says nothing that they are all the same."""
COLLAPSED_SHARE = 0.9
"""Share of equal answers that is a collapse, fifteen of sixteen: where one answer is right for two inputs in three, chance gives so many
in 1.4 % of the draws."""
LARGEST_RISE = 0.25
"""Rise of the share of empty or unended answers that is no collapse yet."""


@dataclass(frozen=True)
class AnswerStats:
    """What can be said of answers without knowing the right ones.

    Args:
        num_answers: Number of answers, to as many distinct inputs.
        most_frequent: The most frequent answer.
        most_frequent_share: Share of the answers that are the most frequent one.
        empty_share: Share of answers without text, which are wrong for certain.
        unended_share: Share of answers that were cut at `max_target_length`: the model found no end.
    """

    num_answers: int
    most_frequent: str
    most_frequent_share: float
    empty_share: float
    unended_share: float

    @classmethod
    def of(cls, answers: Sequence[str], lengths: Sequence[int], max_length: int) -> AnswerStats:
        """Counts answers.

        Args:
            answers: Texts.
            lengths: Number of each answer's tokens, the end token among them; an answer of more than `max_length` was cut.
        """
        text, count = Counter(answers).most_common(1)[0]
        return cls(
            num_answers=len(answers),
            most_frequent=text,
            most_frequent_share=count / len(answers),
            empty_share=float(np.mean([not answer for answer in answers])),
            unended_share=float(np.mean([length > max_length for length in lengths])),
        )

    def collapse_from(self, base: AnswerStats) -> str | None:
        """Says how these answers collapsed where those of the base had not; None if they did not.

        Answers that are all the same are a collapse only if those of the base were not: of a task with two answers, many are.
        """
        same, was = self.most_frequent_share, base.most_frequent_share
        if self.num_answers >= FEWEST_ANSWERS and same >= COLLAPSED_SHARE and same >= 2 * was:
            return f"{same:.0%} of the answers are {self.most_frequent[:40]!r} (base: {was:.0%} the same)"
        if self.empty_share > base.empty_share + LARGEST_RISE:
            return f"{self.empty_share:.0%} of the answers are empty (base: {base.empty_share:.0%})"
        if self.unended_share > base.unended_share + LARGEST_RISE:
            return f"{self.unended_share:.0%} of the answers do not end (base: {base.unended_share:.0%})"
        return None


@dataclass(frozen=True)
class GateEvidence:
    """What the gate compares of two models.

    Args:
        loss: Mean loss over the tokens of the held-out retrieved examples, without label smoothing.
        answers: Statistics of the answers to the unlabelled inputs.
    """

    loss: float
    answers: AnswerStats


@dataclass(frozen=True)
class GateVerdict:
    """Whether the adapted model was kept, or the base put back, and why.

    Args:
        kept: Whether the weights are the trained ones; otherwise they are those from before the adaptation.
        reason: Sentence for people.
        num_held_out: Number of distinct retrieved examples that were not trained on.
        base, adapted: Evidence of the two models that were compared.
    """

    kept: bool
    reason: str
    num_held_out: int
    base: GateEvidence
    adapted: GateEvidence

    @classmethod
    def on(cls, base: GateEvidence, adapted: GateEvidence, num_held_out: int) -> GateVerdict:
        """Keeps the adapted model if the held-out loss fell and the answers did not collapse."""
        collapse = adapted.answers.collapse_from(base.answers)
        # So that it is not kept where its loss is not a number.
        falls = adapted.loss < base.loss
        losses = f"loss on {num_held_out} held-out retrieved examples went from {base.loss:.4f} to {adapted.loss:.4f}"
        if falls and collapse is None:
            reason = f"The {losses}, and the answers to the inputs did not collapse."
        elif falls:
            reason = f"{collapse}, though the {losses}."
        else:
            reason = f"The {losses}, which is no improvement{f'; {collapse}' if collapse else ''}."
        return cls(falls and collapse is None, reason, num_held_out, base, adapted)


class SafetyGate:
    """Compares a model before and after an adaptation, and puts the weights back that it had before unless it is fit to stay.

    The gate is made before the adaptation: it keeps copies of the weights that will be trained, on the CPU, and takes the base's evidence.

    Args:
        model: Model that will be adapted, its weights being whole in each process.
        evidence: Call that takes the evidence of the model as it is then.
        num_held_out: Number of held-out examples behind the evidence.
    """

    def __init__(self, model: torch.nn.Module, evidence: Callable[[], GateEvidence], num_held_out: int) -> None:
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._before = [parameter.detach().to("cpu", copy=True) for parameter in self._trained]
        self._evidence, self._num_held_out = evidence, num_held_out
        self._base = evidence()

    @torch.no_grad()
    def decide(self) -> GateVerdict:
        """Says whether the adapted model is kept, as the main process finds; where it is not, its weights are the base's again."""
        verdict = GateVerdict.on(self._base, self._evidence(), self._num_held_out)
        verdict = agreed(lambda: verdict)
        if not verdict.kept:
            for parameter, value in zip(self._trained, self._before, strict=True):
                parameter.copy_(value)
            logger.warning("The base model's weights were put back. %s", verdict.reason)
        return verdict


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
            "Raise `num_retrieved`, or leave `safety_gate` out."
        )
    number = min(max(1, round(fraction * len(distinct))), len(distinct) - 1)
    chosen = {distinct[place] for place in np.random.default_rng(seed).choice(len(distinct), number, replace=False)}
    first = {text: row for row, text in reversed([*enumerate(inputs)])}
    kept = [row for row, text in enumerate(inputs) if text not in chosen]
    return retrieved.select(kept), retrieved.select(sorted(first[text] for text in chosen))


def gate_evidence(trainer: ExampleTrainer, held_out: Dataset, inputs: Sequence[str]) -> GateEvidence:
    """Takes the evidence of a trainer's model as it is now.

    Args:
        held_out: Labelled examples to measure the loss on.
        inputs: Unlabelled inputs to answer; repetitions are answered once.
    """
    args = trainer.args
    with trainer.accelerator.autocast():
        loss = token_loss(trainer.model, trainer.tokenize(held_out), trainer.data_collator)
    answers = trainer.answer([*dict.fromkeys(inputs)])
    # With an end token that it did not have, an answer that was cut is too long.
    ids = trainer.architecture.answer_ids(trainer.processing_class, answers, args.max_target_length + 1)
    return GateEvidence(loss, AnswerStats.of(answers, [len(of_answer) for of_answer in ids], args.max_target_length))


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
        for rows in token_budget_batches(lengths, token_budget):
            items = collate([examples[row] for row in rows])
            counts.append(int((items["labels"] != -100).sum()))
            losses.append(mean_token_loss(model, on_device(items, model.device)))
    # The one moment when the host waits for the device, which may have no float64 (Apple's).
    return float(np.average(torch.stack(losses).cpu().double().numpy(), weights=counts))
