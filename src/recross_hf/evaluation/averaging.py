"""The mean of what LoRA adapters change: one model in place of several that were adapted apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from ..models.adapters import check_plain_lora

_MEAN = "mean"


def lora_state(model: Any) -> tuple[Any, dict[str, Tensor]]:
    """The configuration and the weights of a model's only adapter, in the memory of the host.

    Raises:
        ValueError: The model has no LoRA adapter, or one that changes more than linear layers by low ranks: that would be lost.
    """
    from peft import LoraConfig, get_peft_model_state_dict

    config = model.peft_config.get("default") if hasattr(model, "peft_config") else None
    if not isinstance(config, LoraConfig):
        raise ValueError(
            f"Expected adapters of LoRA to average, found {type(config or model).__name__}. Pass a `peft_config` that is a LoraConfig."
        )
    check_plain_lora(config, "adapters to average", keeps_base=False)  # all are on the same one
    return config, {name: weight.detach().cpu() for name, weight in get_peft_model_state_dict(model).items()}


def average_adapters(model: Any, others: list[tuple[Any, dict[str, Tensor]]]) -> Any:
    """Gives a model the mean of its own and other adapters' changes BA (a uniform soup, Wortsman et al. 2022, arXiv 2203.05482).

    The mean of the products is not the product of the means. PEFT's "cat" keeps it exactly: one adapter whose rank is the sum of theirs.

    Args:
        model: `PeftModel` with a LoRA adapter, which is changed.
        others: Adapters that were trained on the same base ([`lora_state`]).
    """
    from peft import set_peft_model_state_dict

    names = ["default"]
    # What the mean has of the first one's: the factors have their scale already, and some first weights change the base's.
    for setting, value in (("use_rslora", False), ("init_lora_weights", True)):
        setattr(model.peft_config["default"], setting, value)
    for number, (config, weights) in enumerate(others, start=1):
        names.append(f"part_{number}")
        model.add_adapter(names[-1], replace(config, init_lora_weights=True))
        set_peft_model_state_dict(model, weights, adapter_name=names[-1])
    model.add_weighted_adapter(names, [1 / len(names)] * len(names), _MEAN, combination_type="cat")
    model.set_adapter(_MEAN)
    for name in names:
        model.delete_adapter(name)
    return model.eval()
