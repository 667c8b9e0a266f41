"""Batches of tokenised examples: padding, and where the labels stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedTokenizerBase,
)

Batch = dict[str, torch.Tensor]


class ExampleCollator(DataCollatorForSeq2Seq):
    """Pads inputs and labels on the right; unlabelled batches have no `labels` key (the base class leaves a `None` there)."""

    def __call__(self, features: list[dict[str, Any]], return_tensors: str | None = None) -> Batch:
        # On the left, positions of BART would depend on what else is in the batch.
        side, self.tokenizer.padding_side = self.tokenizer.padding_side, "right"
        try:
            batch = super().__call__(features, return_tensors=return_tensors)
        finally:
            self.tokenizer.padding_side = side
        if batch.get("labels") is None:
            batch.pop("labels", None)
        return batch


class CausalCollator:
    """Joins each prompt and its answer, and pads on the right; the answers alone, with their end tokens, are targets."""

    def __init__(self, processing_class: PreTrainedTokenizerBase, *, pad_to_multiple_of: int | None = None) -> None:
        self.pad = pad_token_id(processing_class)
        self.pad_to_multiple_of = pad_to_multiple_of or 1

    def __call__(self, features: list[dict[str, Any]]) -> Batch:
        batch = self._joined(features)
        missing = -batch["input_ids"].shape[1] % self.pad_to_multiple_of
        fill = {"input_ids": self.pad, "attention_mask": 0, "labels": -100}
        return {
            name: torch.nn.functional.pad(values, (0, missing), value=fill[name]) for name, values in batch.items()
        }

    def _joined(self, features: list[dict[str, Any]]) -> Batch:
        prompts = [torch.as_tensor(feature["input_ids"], dtype=torch.long) for feature in features]
        if "labels" not in features[0]:
            return padded(prompts, self.pad)
        answers = [torch.as_tensor(feature["labels"], dtype=torch.long) for feature in features]
        pairs = list(zip(prompts, answers, strict=True))
        labels = [torch.cat([torch.full_like(prompt, -100), answer]) for prompt, answer in pairs]
        batch = padded([torch.cat(pair) for pair in pairs], self.pad)
        return batch | {"labels": pad_sequence(labels, batch_first=True, padding_value=-100)}


def pad_token_id(processing_class: PreTrainedTokenizerBase) -> int:
    """What to pad with: the end token, where a tokenizer has no padding of its own (GPT-2, Llama).

    The tokenizer stays as it is. Masks tell the two apart, and never the token.
    """
    pad = processing_class.pad_token_id
    return end_token_id(processing_class) if pad is None else pad


def padded(token_ids: Sequence[Sequence[int] | torch.Tensor], pad: int, side: str = "right") -> Batch:
    """Rows of token ids as `input_ids` and `attention_mask` of one length."""
    rows = [torch.as_tensor(ids, dtype=torch.long) for ids in token_ids]
    return {
        "input_ids": pad_sequence(rows, batch_first=True, padding_value=pad, padding_side=side),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side),
    }


def end_token_id(processing_class: PreTrainedTokenizerBase) -> int:
    if processing_class.eos_token_id is None:
        raise ValueError(
            "Expected a tokenizer with an end-of-sequence token, found none: answers could not end. Set "
            "`tokenizer.eos_token` to the one that the model knows."
        )
    return processing_class.eos_token_id
