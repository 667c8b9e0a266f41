"""Batches of tokenised examples: padding, and where the labels stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, PreTrainedTokenizerBase

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
        prompts = [list(feature["input_ids"]) for feature in features]
        multiple = self.pad_to_multiple_of
        if "labels" not in features[0]:
            return padded(prompts, self.pad, multiple_of=multiple)
        answers = [list(feature["labels"]) for feature in features]
        pairs = list(zip(prompts, answers, strict=True))
        labels = [[-100] * len(prompt) + answer for prompt, answer in pairs]
        batch = padded([prompt + answer for prompt, answer in pairs], self.pad, multiple_of=multiple)
        return batch | {"labels": padded_rows(labels, -100, multiple_of=multiple)}


def pad_token_id(processing_class: PreTrainedTokenizerBase) -> int:
    """What to pad with: the end token, where a tokenizer has no padding of its own (GPT-2, Llama).

    The tokenizer stays as it is. Masks tell the two apart, and never the token.
    """
    pad = processing_class.pad_token_id
    return end_token_id(processing_class) if pad is None else pad


def padded(token_ids: Sequence[Sequence[int]], pad: int, side: str = "right", *, multiple_of: int = 1) -> Batch:
    """Rows of token ids as `input_ids` and `attention_mask` of one length."""
    ones = [[1] * len(ids) for ids in token_ids]
    return {
        "input_ids": padded_rows(token_ids, pad, side, multiple_of=multiple_of),
        "attention_mask": padded_rows(ones, 0, side, multiple_of=multiple_of),
    }


def padded_rows(
    rows: Sequence[Sequence[int]], fill: int, side: str = "right", *, multiple_of: int = 1
) -> torch.Tensor:
    """Rows of numbers as a tensor `[n, longest]`, filled up on one side, to a multiple of a length if that is asked for."""
    longest = max(map(len, rows))
    longest += -longest % multiple_of
    filled = [[fill] * (longest - len(row)) for row in rows]
    left = side == "left"
    pairs = zip(rows, filled, strict=True)
    return torch.tensor([[*rest, *row] if left else [*row, *rest] for row, rest in pairs], dtype=torch.long)


def end_token_id(processing_class: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer.

    Raises:
        ValueError: The tokenizer has none.
    """
    if processing_class.eos_token_id is None:
        raise ValueError(
            "Expected a tokenizer with an end-of-sequence token, found none: answers could not end. Set "
            "`tokenizer.eos_token` to the one that the model knows."
        )
    return processing_class.eos_token_id
