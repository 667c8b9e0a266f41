"""Weights of a checkpoint in half precision that were loaded in float32: they are stored as they were, in half the space."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from .shared_weights import base_alone


def exact_dtype(weights: Iterable[torch.Tensor]) -> torch.dtype | None:
    """The half precision that holds each of some weights exactly; None where one of them needs more, as after a training in float32."""
    floats = [weight for weight in weights if weight.is_floating_point()]
    for dtype in (torch.bfloat16, torch.float16):
        if all(not weight.is_meta and torch.equal(weight.to(dtype).to(weight.dtype), weight) for weight in floats):
            return dtype
    return None


def stored_weights(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The weights of a model as they are stored, for `save_pretrained`: exactly, in half precision where that holds all of them.

    `config.json` goes on to say in which type the model computes, so that whatever loads it has the same weights and answers.
    """
    weights: dict[str, Any] = model.state_dict()
    tensors = {name: weight for name, weight in weights.items() if isinstance(weight, torch.Tensor)}
    if (dtype := exact_dtype(tensors.values())) is None:
        return weights
    stored: dict[Any, torch.Tensor] = {}  # weights that are shared stay so
    for name, weight in tensors.items():
        if weight.is_floating_point():
            place = weight.untyped_storage().data_ptr(), weight.storage_offset(), weight.shape, weight.stride()
            if place not in stored:
                stored[place] = weight.to("cpu", dtype)  # a GPU may have no room for copies
            weights[name] = stored[place]
    return weights


def stored_bytes(model: PreTrainedModel) -> int:
    """Bytes of a model's weights as [`stored_weights`] stores them; of a PEFT model, of its base and its adapter."""
    whole, base = (list(one.parameters()) for one in (model, base_alone(model)))
    dtype = exact_dtype(base)
    of_base, of_all = (sum(weight.nbytes for weight in weights) for weights in (base, whole))
    stored = of_base if dtype is None else sum(weight.numel() * dtype.itemsize for weight in base)
    return of_all - of_base + stored
