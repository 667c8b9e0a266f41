"""Weights that models have in common: an adapter on a base that somebody else holds, and the base takes no memory twice."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedModel

from .adapters import is_peft_model

if TYPE_CHECKING:
    from peft import PeftModel


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
    """Whether nothing but a merge would write into the weights of a copy that shares them.

    Quantized weights know more than their values, and an adapter that is merged is taken out again, in place, where another is switched on.
    """
    is_plain = all(type(weight) is torch.nn.Parameter for weight in model.parameters())
    return is_plain and not any(getattr(module, "merged", False) for module in model.modules())


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
    model.base_model.is_apart = False  # a copy of one that was has that, too


def on_shared_weights(base: PreTrainedModel, folder: str | Path, name: str = "default") -> PeftModel:
    """Loads a plain LoRA adapter on a copy of its base that shares the base's weights.

    Args:
        base: The base, which stays as it is.
        folder: Folder of the adapter.
        name: What PEFT calls the adapter.
    """
    from peft import PeftModel

    # Weights of the base, which a foreign adapter's file may hold beside its own, take the place of the shared ones and are not written into them.
    model = PeftModel.from_pretrained(
        sharing_copy(base), str(folder), adapter_name=name, low_cpu_mem_usage=True, torch_device=str(base.device)
    )
    apart_before_merging(model)
    return model
