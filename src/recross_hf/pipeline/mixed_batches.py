"""A batch whose rows are answered by different LoRA adapters on one base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import pad

BASE_NAME = "__base__"
"""PEFT's name, in a mixed batch, for the base without an adapter."""


@contextmanager
def mixing(layers: Sequence[Any], names: Sequence[str]) -> Iterator[None]:
    """Within it, each row of a batch goes through an adapter of its own, all of them in one product of matrices.

    PEFT's `adapter_names` computes one adapter after another in each layer: with twenty that takes longer than the base does.

    Args:
        layers: PEFT's LoRA layers of a model, none of whose adapters is active.
        names: The adapter of each row, or `BASE_NAME`. With beams, each stands for as many rows as there are beams.
    """
    distinct = [name for name in dict.fromkeys(names) if name != BASE_NAME]
    hooks = []
    try:
        for layer in layers:
            # An adapter need not change every layer.
            if here := [name for name in distinct if name in layer.lora_A]:
                hooks.append(layer.register_forward_hook(_adding(layer, here, names)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(layer: Any, here: Sequence[str], names: Sequence[str]) -> Callable[..., torch.Tensor]:
    """A hook that adds to a layer's output what the rows' adapters do."""
    down = [layer.lora_A[name].weight for name in here]
    up = [layer.lora_B[name].weight for name in here]
    rank, device = max(len(weight) for weight in down), down[0].device
    place = {name: position for position, name in enumerate(here)}
    rows = torch.tensor([place.get(name, 0) for name in names], device=device)
    scales = torch.tensor([layer.scaling[name] if name in place else 0.0 for name in names], device=device)
    is_in_order = list(names) == list(here)

    def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        given = inputs[0]
        num_rows, rest = len(given), given.shape[-1]
        if num_rows % len(names):
            raise ValueError(
                f"Expected each layer to take a row for each of the {len(names)} inputs, found {num_rows} rows in "
                f"{type(module).__name__}: a model that mixes its rows cannot mix adapters. Answer one task after another."
            )
        # Stacked anew each time: kept, the stacks would take the memory of all adapters once more.
        first = torch.stack([pad(weight, (0, 0, 0, rank - len(weight))) for weight in down])
        second = torch.stack([pad(weight, (0, rank - weight.shape[1])) for weight in up])
        beams = num_rows // len(names)
        if not is_in_order or beams > 1:
            expanded = rows.repeat_interleave(beams)
            first, second = first[expanded], second[expanded]
        changed = given.reshape(num_rows, -1, rest).to(first.dtype) @ first.mT @ second.mT
        changed = changed * scales.repeat_interleave(beams)[:, None, None].to(changed.dtype)
        # As PEFT does for one adapter: rounded once, where the base is in half precision.
        return (output + changed.reshape(output.shape)).to(output.dtype)

    return add
