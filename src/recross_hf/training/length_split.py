"""Steps whose rows are of unequal length, computed in parts of like length: the same gradient without most of the padding.

On a processor a step takes as long as it has tokens, padding among them, and a random batch of a mixture of tasks is half padding. On a GPU a
few rows more or less hardly change the time of a step, and its parts would cost more than the padding does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..models.collators import Batch

PART_COST = 192
"""What another part of a step costs on a processor, in tokens. On two cores it was 187 with an encoder-decoder of 6 M weights in float32, and 183
with a decoder-only model of 270 M, LoRA and bfloat16 (`benchmarks/length_split.py`); more cores were not tried."""
_OF_TARGETS = ("labels", "decoder_input_ids")


def cheapest_parts(lengths: Sequence[Sequence[int]], part_cost: int = PART_COST) -> list[list[int]]:
    """Divides rows into parts, each as wide as its longest row, so that all of them together have the fewest tokens.

    Args:
        lengths: Lengths of each row: of the input, and of the target where it is padded apart. Rows are ordered by the first one.
        part_cost: Tokens that another part counts as.

    Returns:
        The numbers of the rows in each part, in their order; one part of all rows where that costs least.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row][0])
    best, begins = [0], [0]  # the least cost of the first rows, and where their last part begins
    for end in range(1, len(order) + 1):
        widest = [0] * len(lengths[0])
        costs = {}
        for begin in range(end - 1, -1, -1):
            widest = [max(pair) for pair in zip(widest, lengths[order[begin]], strict=True)]
            costs[begin] = best[begin] + (end - begin) * sum(widest) + part_cost
        begins.append(min(costs, key=lambda begin: (costs[begin], begin)))
        best.append(costs[begins[-1]])
    parts, end = [], len(order)
    while end:
        parts.append(sorted(order[begins[end] : end]))
        end = begins[end]
    return parts[::-1]


def split_by_length(
    batch: Batch, *, has_targets_apart: bool, multiple_of: int = 1, part_cost: int = PART_COST
) -> list[Batch]:
    """Divides a batch that is padded on the right by [`cheapest_parts`], and takes the padding off each part.

    Args:
        batch: Tensors `[rows, length]`, `attention_mask` and `labels` among them; -100 fills up labels.
        has_targets_apart: Whether targets are rows of their own, as an encoder-decoder has them, or stand in the rows of the inputs.
        multiple_of: Lengths are padded to a multiple of this.
        part_cost: Tokens that another part counts as.

    Returns:
        The parts; the batch alone where that costs least, where it has tensors that are not known to be rows of tokens, or where a row has
        no target, so that a part could have no loss.
    """
    of_targets = _OF_TARGETS if has_targets_apart else ()
    if not {"attention_mask", "labels"} <= batch.keys() <= {"input_ids", "attention_mask", *_OF_TARGETS}:
        return [batch]
    if not bool((batch["labels"] != -100).any(dim=1).all()):
        return [batch]
    filled = [batch["attention_mask"] != 0, *([batch["labels"] != -100] if has_targets_apart else [])]
    lengths = torch.stack([_lengths(of_rows) for of_rows in filled], dim=1)
    lengths.clamp_(min=1)
    lengths += -lengths % multiple_of
    parts = cheapest_parts(lengths.tolist(), part_cost)
    if len(parts) == 1:
        return [batch]
    widths = [lengths[rows].amax(dim=0).tolist() for rows in parts]
    return [
        {name: tensor[rows, : width[-1] if name in of_targets else width[0]] for name, tensor in batch.items()}
        for rows, width in zip(parts, widths, strict=True)
    ]


def _lengths(filled: torch.Tensor) -> torch.Tensor:
    """The length of each row up to its last token: `[rows, length]` to `[rows]`."""
    return (filled * torch.arange(1, filled.shape[1] + 1, device=filled.device)).amax(dim=1)
