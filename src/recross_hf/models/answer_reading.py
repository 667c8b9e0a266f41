"""What a model thinks of given answers, token by token: likelihoods, margins and the distribution of the first token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from ..core.batching import on_device, token_budget_batches
from .base import TokenIds, vocabulary_size
from .collators import Batch
from .heads import answer_logits
from .modes import evaluating


@dataclass(frozen=True)
class AnswerReading:
    """What a model thinks of one answer to each of `n` inputs.

    Args:
        num_tokens: Number of tokens of each answer: int64 `[n]`.
        log_likelihoods: Mean log-likelihood of an answer's tokens, in nats: float32 `[n]`.
        margins: Mean over an answer's places of the difference between the two likeliest tokens' log-likelihoods: float32 `[n]`.
        first: Log-probabilities of the token at each answer's first place, on the model's device: float32 `[n, vocabulary]`; None where they
            were not asked for.
    """

    num_tokens: torch.Tensor
    log_likelihoods: torch.Tensor
    margins: torch.Tensor
    first: torch.Tensor | None = None


@torch.inference_mode()
def read_answers(
    model: PreTrainedModel,
    prompts: TokenIds,
    answers: TokenIds,
    collate: Callable[[list[dict[str, Any]]], Batch],
    *,
    first_places: Sequence[int] | None = None,
    token_budget: int = 2048,
) -> AnswerReading:
    """Reads answers as training does, with dropout off.

    Args:
        model: Model of either kind, with or without PEFT.
        prompts: Token ids of each input.
        answers: Token ids of each answer, one at least.
        collate: Collator that makes batches of items, as in training.
        first_places: Place of the token in each answer whose distribution is kept: that of the first token with a content.
        token_budget: Number of tokens in a batch, input and answer, padding included.
    """
    num = torch.tensor([len(ids) for ids in answers])
    log_likelihoods, margins = torch.zeros(len(answers)), torch.zeros(len(answers))
    first: list[torch.Tensor] = [torch.empty(0)] * len(answers)
    with evaluating(model):
        lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)]
        of_answers = [vocabulary_size(model) * len(answer) for answer in answers]
        for rows in token_budget_batches(lengths, token_budget, logits=of_answers):
            items = collate([{"input_ids": prompts[row], "labels": answers[row]} for row in rows])
            logits, labels = _logits_and_labels(model, on_device(items, model.device))
            log_probabilities = torch.log_softmax(logits.float(), dim=1)
            of_labels = log_probabilities.gather(1, labels[:, None])[:, 0]
            best = log_probabilities.topk(2, dim=1).values
            counts = num[rows]
            of_row = torch.repeat_interleave(torch.arange(len(rows)), counts).to(labels.device)
            for values, found in ((of_labels, log_likelihoods), (best[:, 0] - best[:, 1], margins)):
                sums = torch.zeros(len(rows), device=labels.device).index_add_(0, of_row, values)
                found[rows] = sums.cpu() / counts
            if first_places is not None:
                starts = counts.cumsum(0) - counts
                for start, row in zip(starts.tolist(), rows, strict=True):
                    first[row] = log_probabilities[start + first_places[row]].clone()
    return AnswerReading(num, log_likelihoods, margins, torch.stack(first) if first_places is not None else None)


def _logits_and_labels(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[n, vocabulary]` and labels `[n]` of all answers' tokens, row by row."""
    if not model.config.is_encoder_decoder:
        return answer_logits(model, batch)
    whole: Any = model
    places = batch["labels"] != -100
    return whole(**batch).logits[places], batch["labels"][places]
