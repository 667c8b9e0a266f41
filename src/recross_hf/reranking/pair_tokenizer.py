"""Pairs of texts as token ids for a cross-encoder: each text is tokenised once, however many pairs it is in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import TEXTS_A_CALL, chunks
from ..models.architectures import longest_input
from ..models.collators import padded, padded_rows

TokenIds = list[int]

_POSITIONS_AFTER_PADDING = {
    "roberta",
    "xlm-roberta",
    "camembert",
    "longformer",
    "mpnet",
    "data2vec-text",
    "xlm-roberta-xl",
}
"""Types of models whose positions begin behind the id of the padding token."""


class PairTokenizer:
    """Joins two tokenised texts as the tokenizer itself would, e.g. `[CLS] first [SEP] second [SEP]`.

    Args:
        processing_class: Fast tokenizer of the model.
        max_length: Greatest number of tokens of a pair, special ones included.

    Raises:
        ValueError: The tokenizer puts nothing between two texts, or `max_length` leaves no room for them.
    """

    def __init__(self, processing_class: PreTrainedTokenizerBase, max_length: int) -> None:
        self.processing_class = processing_class
        probe = processing_class("a", "a", return_token_type_ids=True)
        ids, types = probe["input_ids"], probe["token_type_ids"]
        of = probe.sequence_ids(0)
        if 1 not in of or None not in of[of.index(0) : of.index(1)]:
            raise ValueError(
                f"Expected a tokenizer that puts a separator between the two texts of a pair, found "
                f"{processing_class.decode(ids)!r} for 'a' and 'a' ({type(processing_class).__name__}). Choose an encoder with "
                "pair support (BERT, RoBERTa, DeBERTa, MiniLM), or give the tokenizer a pair template."
            )
        end_of_first = len(of) - 1 - of[::-1].index(0)
        end_of_second = len(of) - 1 - of[::-1].index(1)
        between = (slice(0, of.index(0)), slice(end_of_first + 1, of.index(1)), slice(end_of_second + 1, None))
        self.specials = tuple(ids[tokens] for tokens in between)
        self.special_types = tuple(types[tokens] for tokens in between)
        self.text_types = (types[of.index(0)], types[of.index(1)])
        self.num_special = sum(map(len, self.specials))
        self.has_types = "token_type_ids" in processing_class.model_input_names
        if max_length < self.num_special + 2:
            raise ValueError(f"Expected `max_length` to be at least {self.num_special + 2}, found {max_length}.")
        self.room = max_length - self.num_special
        # Without a padding token any other does: the mask tells them apart.
        known = (processing_class.pad_token_id, processing_class.eos_token_id, processing_class.sep_token_id, 0)
        self.pad_token = next(token for token in known if token is not None)

    def tokenize(self, texts: Sequence[str]) -> list[TokenIds]:
        """Token ids of each text alone, whole and without special tokens: its length decides how a pair is cut."""
        return [
            ids
            for chunk in chunks(texts, TEXTS_A_CALL)
            for ids in self.processing_class(
                list(chunk),
                add_special_tokens=False,
                return_attention_mask=False,
                verbose=False,
            )["input_ids"]
        ]

    def cut(self, first: int, second: int) -> tuple[int, int]:
        """Numbers of tokens that are kept of two texts: the longer is cut first, and of two long ones each keeps half.

        `truncation="longest_first"` cuts alike, so that others who open the model read the same pairs.
        """
        if first + second <= self.room:
            return first, second
        half = self.room // 2
        if min(first, second) > half:
            # The odd token goes to the longer side.
            return (self.room - half, half) if first > second else (half, self.room - half)
        return (self.room - second, second) if first > second else (first, self.room - first)

    def length(self, first: int, second: int) -> int:
        """Number of tokens of a pair, of those of its texts."""
        return min(first + second, self.room) + self.num_special

    def join(self, first: TokenIds, second: TokenIds) -> dict[str, TokenIds]:
        """Joins two texts to a pair: its `input_ids` and, where the model takes them, its `token_type_ids`."""
        first_kept, second_kept = self.cut(len(first), len(second))
        start, middle, end = self.specials
        joined = {"input_ids": [*start, *first[:first_kept], *middle, *second[:second_kept], *end]}
        if self.has_types:
            start, middle, end = self.special_types
            first_type, second_type = self.text_types
            joined["token_type_ids"] = [
                *start,
                *[first_type] * first_kept,
                *middle,
                *[second_type] * second_kept,
                *end,
            ]
        return joined

    def pad(self, pairs: Sequence[dict[str, TokenIds]]) -> dict[str, torch.Tensor]:
        """Joined pairs as tensors `[n, longest]`, with an `attention_mask` where there is padding."""
        batch = padded([pair["input_ids"] for pair in pairs], self.pad_token)
        if batch["attention_mask"].all():  # without a mask, attention takes its faster path
            del batch["attention_mask"]
        if self.has_types:
            types = [pair["token_type_ids"] for pair in pairs]
            batch["token_type_ids"] = padded_rows(types, self.processing_class.pad_token_type_id)
        return batch


def longest_pair(model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> int:
    """Greatest number of tokens of a pair that a cross-encoder takes.

    Args:
        model: Model of the cross-encoder.
        processing_class: Tokenizer of the model.
    """
    longest = longest_input(model, processing_class)
    # RoBERTa counts positions from the padding token's id on, so that it has fewer than it says.
    offset = (model.config.pad_token_id or 0) + 1 if model.config.model_type in _POSITIONS_AFTER_PADDING else 0
    return min(longest, model.config.max_position_embeddings - offset) if offset else longest
