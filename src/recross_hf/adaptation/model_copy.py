"""The copy of a model that an adaptation trains; the caller's model stays as it is."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel

from ..models.adapters import check_peft_config, is_peft_model, is_plain_lora, merged_in_place, with_new_adapter
from ..models.architectures import architecture_of
from ..models.base import check_finite_weights
from ..models.shared_weights import apart_before_merging, can_share, sharing_copy, trained_apart
from ..training._compat import unprepared

if TYPE_CHECKING:
    from peft import PeftConfig


def adaptable_copy(
    model: PreTrainedModel, peft_config: PeftConfig | None, seed: int, *, upstream_adapter: str = "continue"
) -> PreTrainedModel:
    """Copies a model and makes the copy trainable: all its weights, in float32, a new adapter, or the adapter that it has.

    Below an adapter of plain LoRA, whose base stays as it is, the copy shares the model's frozen weights, so that they take no memory twice;
    it copies them before the adapter is merged into them.

    Args:
        model: A model, or a PEFT model with one adapter.
        peft_config: Configuration of a new adapter; None for all weights, or to go on with the adapter that the model has.
        seed: Seed of a new adapter's first weights.
        upstream_adapter: What becomes of the adapter that the model has: "continue" or "merge".

    Raises:
        TypeError: The model is of a kind that writes no text.
        ValueError: `peft_config` is for another kind of model, names modules that the model does not have, or is given where the
            model's own adapter is to be trained further; or a weight is NaN or infinite.
    """
    architecture_of(model)
    if is_peft_model(model) and upstream_adapter == "continue":
        return _going_on(model, peft_config)
    if peft_config is not None:
        check_peft_config(model, peft_config)
    check_finite_weights(model)
    if peft_config is not None and not is_peft_model(model) and is_plain_lora(peft_config) and can_share(model):
        adapted = with_new_adapter(unprepared(sharing_copy(model, shares_buffers=False)), peft_config, seed)
        apart_before_merging(adapted)
        return adapted
    adaptable = unprepared(copy.deepcopy(model))
    if peft_config is None:
        # Steps of 1e-6 round to nothing in half precision; `bf16=True` computes in it and keeps these weights.
        whole: Any = adaptable  # transformers leaves the method without annotations
        adaptable = whole.float()
    if is_peft_model(model):
        adaptable = merged_in_place(adaptable, is_named=peft_config is None)
        adaptable.requires_grad_(True)  # PEFT had frozen it
    return adaptable if peft_config is None else with_new_adapter(adaptable, peft_config, seed)


def _going_on(model: PreTrainedModel, peft_config: PeftConfig | None) -> PreTrainedModel:
    if peft_config is not None:
        raise ValueError(
            "Expected no `peft_config` (--lora_r, ...) beside a model that has an adapter, which is trained further as it is, found one. "
            "Leave it out, or set `upstream_adapter='merge'` to train a new adapter on base and adapter as one."
        )
    check_finite_weights(model)
    of_peft: Any = model
    is_shared = all(map(is_plain_lora, of_peft.peft_config.values())) and can_share(model)
    adaptable: Any = unprepared(sharing_copy(model, shares_buffers=False) if is_shared else copy.deepcopy(model))
    adaptable.set_adapter(adaptable.active_adapters[0])  # its weights alone are trained
    if is_shared:
        trained_apart(adaptable)
        apart_before_merging(adaptable)
    return cast(PreTrainedModel, adaptable)
