"""Batches: some items at a time, how many tokens fit into a batch, and its way to the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")

TEXTS_A_CALL = 512
"""Texts that a tokenizer is given at once: enough to use all cores, while what it keeps beside the ids (offsets, masks) stays small."""


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    """Items in their order, `size` at a time; the last chunk may be shorter."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def token_budget_batches(lengths: Sequence[int], token_budget: int) -> Iterator[list[int]]:
    """Rows by falling length, in batches of at most `token_budget` tokens, padding included; at least one row each.

    The longest come first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: Tokens of each row.
        token_budget: Tokens that a batch may have, padding included.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and lengths[batch[0]] * (len(batch) + 1) > token_budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def on_device(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch on the device. To a GPU it is copied from pinned memory: the host makes the next one meanwhile."""
    if device.type == "cuda":
        batch = {name: values.pin_memory() for name, values in batch.items()}
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}
