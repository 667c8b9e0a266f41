"""How many tokens fit: into a model, into a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def longest_input(encoder: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> int:
    """How many tokens an encoder can take; one with relative positions, such as T5's, has no limit of its own."""
    positions = getattr(encoder.config, "max_position_embeddings", None) or processing_class.model_max_length
    return min(positions, processing_class.model_max_length)


def token_budget_batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Rows by falling length, in batches of at most `token_budget` tokens, padding included; at least one row each.

    The longest come first, so that what does not fit into memory fails at once.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
