"""Weights that models have in common: an adapter on a base that somebody else holds, and the base takes no memory twice."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from .adapters import is_peft_model


def sharing_copy(model: PreTrainedModel, *, shares_buffers: bool = True) -> PreTrainedModel:
    """A copy of a model with modules of its own and the same weights, which take no memory twice.

    An adapter can be put on the copy and the model stays as it is. Merged, the adapter would change both; see [`apart_before_merging`].

    Args:
        model: The model.
        shares_buffers: Whether buffers are shared, too; some models write into theirs as they are trained.
    """
    # Which of the weights are trained is a setting of the parameter, so that the copy has parameters of its own.
    shared: dict[int, Any] = {
        id(weight): torch.nn.Parameter(weight.detach(), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    if shares_buffers:
        shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared)


def can_share(model: PreTrainedModel) -> bool:
    """Whether each of the weights is a plain parameter: quantized ones know more than their values."""
    return all(type(weight) is torch.nn.Parameter for weight in model.parameters())


def base_alone(model: PreTrainedModel) -> PreTrainedModel:
    """The base of a PEFT model without its adapters, or a model without adapters, as a copy that shares the weights."""
    copied: Any = sharing_copy(model)
    return cast(PreTrainedModel, copied.unload() if is_peft_model(copied) else copied)


def trained_apart(model: PreTrainedModel) -> None:
    """Gives a copy that shares its weights own ones where they are to be trained."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.clone()


def apart_before_merging(model: Any) -> None:
    """Has a PEFT model with LoRA on shared weights take a copy of them before an adapter is merged into them, which writes in place."""
    from .lora_on_shared_base import LoraOnSharedBase

    model.base_model.__class__ = LoraOnSharedBase
