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


LOGITS_A_BATCH = 1 << 28
"""Logits that a batch makes at most, a gibibyte in float32. Of a large vocabulary they take far more than all else that a batch needs."""


def token_budget_batches(
    lengths: Sequence[int], token_budget: int, *, logits: Sequence[int] | None = None
) -> Iterator[list[int]]:
    """Rows by falling length, in batches of at most `token_budget` tokens, padding included; at least one row each.

    The longest come first, so that a batch that does not fit into memory fails at once.

    Args:
        lengths: Tokens of each row.
        token_budget: Tokens that a batch may have, padding included.
        logits: Logits that each row makes, of which a batch has at most [`LOGITS_A_BATCH`], padding included; nothing counts them by
            default.
    """
    batch: list[int] = []
    most = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        most = max(most, 0 if logits is None else logits[row])
        number = len(batch) + 1
        if batch and (lengths[batch[0]] * number > token_budget or most * number > LOGITS_A_BATCH):
            yield batch
            batch, most = [], 0 if logits is None else logits[row]
        batch.append(row)
    if batch:
        yield batch


def on_device(batch: Mapping[str, torch.Tensor], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch on the device. To a GPU it is copied from pinned memory: the host makes the next one meanwhile."""
    if device.type == "cuda":
        batch = {name: values.pin_memory() for name, values in batch.items()}
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}
