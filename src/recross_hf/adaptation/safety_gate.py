"""The safety gate: signs, without labels, that an adapted model should not take the place of its base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedModel

from ..core.batching import on_device, token_budget_batches
from ..models.collators import Batch
from ..models.modes import evaluating
from ..models.tokenization import TokenizedExamples

FEWEST_ANSWERS = 8
"""Of fewer answers, that they are all the same says nothing."""
COLLAPSED_SHARE = 0.9
"""Fifteen of sixteen answers: with an answer that is right for two inputs in three, chance gives so many in 1.4 % of the draws."""
LARGEST_RISE = 0.25


@dataclass(frozen=True)
class AnswerSigns:
    """What can be said of answers without knowing the right ones.

    Args:
        num_answers: to as many distinct inputs.
        most_frequent: the most frequent answer.
        most_frequent_share: how much of the answers it makes up.
        empty_share: answers without text, which are wrong for certain.
        unended_share: answers that were cut at `max_target_length`: the model found no end.
    """

    num_answers: int
    most_frequent: str
    most_frequent_share: float
    empty_share: float
    unended_share: float

    @classmethod
    def of(cls, answers: Sequence[str], lengths: Sequence[int], max_length: int) -> AnswerSigns:
        """The signs of `answers` that have so many tokens, the end token among them; one of more than `max_length` was cut."""
        text, count = Counter(answers).most_common(1)[0]
        return cls(
            num_answers=len(answers),
            most_frequent=text,
            most_frequent_share=count / len(answers),
            empty_share=float(np.mean([not answer for answer in answers])),
            unended_share=float(np.mean([length > max_length for length in lengths])),
        )

    def collapse_from(self, base: AnswerSigns) -> str | None:
        """How these answers collapsed, where those of the base had not; None if they did not.

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
class GateSigns:
    """What the gate compares of two models.

    Args:
        loss: on the held-out retrieved examples, the mean over their tokens, without label smoothing.
        answers: to the unlabelled inputs.
    """

    loss: float
    answers: AnswerSigns


@dataclass(frozen=True)
class GateVerdict:
    """Whether the adapted model was kept, or the base put back, and why.

    Args:
        kept: False: the weights are those from before the adaptation.
        reason: a sentence for people.
        num_held_out: distinct retrieved examples that were not trained on.
        base, adapted: what was compared.
    """

    kept: bool
    reason: str
    num_held_out: int
    base: GateSigns
    adapted: GateSigns

    @classmethod
    def on(cls, base: GateSigns, adapted: GateSigns, num_held_out: int) -> GateVerdict:
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


def hold_out(retrieved: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Retrieved examples to train on, and distinct ones to measure the loss on.

    An example that was retrieved several times is held out with all its repetitions, and so is one with the same input; otherwise the
    loss would fall by remembering.

    Args:
        fraction: of the distinct inputs; one at least is held out.

    Raises:
        ValueError: there is but one input.
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
        collate: makes batches of items, as in training.
        token_budget: tokens a batch, input and answer, padding included.
    """
    lengths = (examples.input_lengths + examples.target_lengths).tolist()
    losses, counts = [], []
    with evaluating(model):
        for rows in token_budget_batches(lengths, token_budget):
            items = collate([examples[row] for row in rows])
            counts.append(int((items["labels"] != -100).sum()))
            losses.append(model(**on_device(items, model.device)).loss)
    # The one moment when the host waits for the device, which may have no float64 (Apple's).
    return float(np.average(torch.stack(losses).cpu().double().numpy(), weights=counts))
