"""The copy of a model that an adaptation trains; the caller's model stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from transformers import PreTrainedModel

from ..models.adapters import check_peft_config, is_peft_model, merged_in_place, with_new_adapter
from ..models.architectures import architecture_of
from ..models.base import check_finite_weights
from ..training._compat import unprepared_copy

if TYPE_CHECKING:
    from peft import PeftConfig


def adaptable_copy(
    model: PreTrainedModel, peft_config: PeftConfig | None, seed: int, *, upstream_adapter: str = "continue"
) -> PreTrainedModel:
    """Copies a model and makes the copy trainable: all its weights, in float32, a new adapter, or the adapter that it has.

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
    # A whole copy, also for PEFT: sharing frozen weights with it would let a later merge change the caller's model.
    adaptable = unprepared_copy(model)
    if peft_config is None:
        # Steps of 1e-6 round to nothing in half precision; `bf16=True` computes in it and keeps these weights.
        whole: Any = adaptable  # transformers leaves the method without annotations
        adaptable = whole.float()
    if is_peft_model(model):
        adaptable = merged_in_place(adaptable, is_named=peft_config is None)
        adaptable.requires_grad_(True)  # PEFT had frozen it
    if peft_config is not None:
        return with_new_adapter(adaptable, peft_config, seed)
    return adaptable


def _going_on(model: PreTrainedModel, peft_config: PeftConfig | None) -> PreTrainedModel:
    if peft_config is not None:
        raise ValueError(
            "Expected no `peft_config` (--lora_r, ...) beside a model that has an adapter, which is trained further as it is, found one. "
            "Leave it out, or set `upstream_adapter='merge'` to train a new adapter on base and adapter as one."
        )
    check_finite_weights(model)
    adaptable: Any = unprepared_copy(model)
    adaptable.set_adapter(adaptable.active_adapters[0])  # its weights alone are trained
    return cast(PreTrainedModel, adaptable)
