"""The copy of a model that an adaptation trains; the caller's model stays as it is."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from ..models.architectures import architecture_of
from ..models.base import check_finite_weights
from ..training._compat import unprepared_copy

if TYPE_CHECKING:
    from peft import PeftConfig


def adaptable_copy(model: PreTrainedModel, peft_config: PeftConfig | None, seed: int) -> PreTrainedModel:
    """Copies a model and makes the copy trainable: all its weights, in float32, or an adapter.

    Args:
        peft_config: Configuration of the adapter; None for all weights.
        seed: Seed of the adapter's first weights.

    Raises:
        TypeError: The model is a PEFT model already, or of a kind that writes no text.
        ValueError: `peft_config` is for another kind of model, or names modules that the model does not have; or a weight is NaN or
            infinite.
    """
    if hasattr(model, "peft_config"):
        raise TypeError(
            "Expected a model without adapters, found a PEFT model. Merge it (`model.merge_and_unload()`), or pass its "
            "base model and a `peft_config`."
        )
    task_type = architecture_of(model).peft_task_type
    if peft_config is not None and peft_config.task_type not in (None, task_type):
        raise ValueError(
            f"Expected a `peft_config` with task_type={task_type!r}, which suits {type(model).__name__}, found "
            f"{str(peft_config.task_type)!r}. Set `peft_config.task_type`."
        )
    if peft_config is not None:
        _check_target_modules(model, peft_config)
    check_finite_weights(model)
    # A whole copy, also for PEFT: sharing frozen weights with it would let a later merge change the caller's model.
    adaptable = unprepared_copy(model)
    if peft_config is None:
        # Steps of 1e-6 round to nothing in half precision; `bf16=True` computes in it and keeps these weights.
        trained: Any = adaptable  # transformers leaves the method without annotations
        return cast(PreTrainedModel, trained.float())
    from peft import get_peft_model

    set_seed(seed)
    # PEFT writes into the configuration that it is given, and its models do whatever the model below them does.
    adapted = get_peft_model(adaptable, copy.deepcopy(peft_config))
    return cast(PreTrainedModel, adapted)


def _check_target_modules(model: PreTrainedModel, peft_config: PeftConfig) -> None:
    """PEFT passes over names that the model does not have, if it has another of them."""
    wanted = getattr(peft_config, "target_modules", None)
    if wanted is None or isinstance(wanted, str):  # PEFT's choice, or a regular expression, which it checks
        return
    names = [name for name, _ in model.named_modules()]
    missing = sorted(one for one in wanted if not any(name == one or name.endswith(f".{one}") for name in names))
    if missing:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
        raise ValueError(
            f"Expected `target_modules` that {type(model).__name__} has, such as {', '.join(sorted(linear))}, found "
            f"{', '.join(map(repr, missing))}. Name some of those, or leave them out for PEFT's choice."
        )
