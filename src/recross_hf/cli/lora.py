"""The flags of LoRA, named as in `trl`, which several sub-commands share."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel

from ..models.adapters import ALL_LINEAR
from ..models.architectures import DECODER_ONLY, architecture_of

if TYPE_CHECKING:
    from peft import PeftConfig


@dataclass
class LoraArguments:
    """Whether a LoRA adapter is trained, and which."""

    use_peft: bool = field(default=False, metadata={"help": "Train a LoRA adapter in place of all weights."})
    lora_r: int = field(default=16, metadata={"help": "LoRA rank."})
    lora_alpha: int = field(default=32, metadata={"help": "LoRA alpha."})
    lora_dropout: float = field(default=0.0, metadata={"help": "LoRA dropout."})
    lora_target_modules: list[str] | None = field(
        default=None,
        metadata={
            "help": "Modules that LoRA adapts, e.g. query value, or all-linear. By default all linear layers of a decoder-only model, and "
            "PEFT's choice for others."
        },
    )

    def __post_init__(self) -> None:
        if self.lora_r < 1:
            raise ValueError(f"Expected --lora_r of at least 1, found {self.lora_r}")

    def config_for(self, model: PreTrainedModel) -> PeftConfig:
        """The configuration of the LoRA adapter that is asked for, for a model."""
        from peft import LoraConfig

        architecture, targets = architecture_of(model), self.lora_target_modules
        if (targets is None and architecture is DECODER_ONLY) or targets == [ALL_LINEAR]:
            wanted: str | list[str] | None = ALL_LINEAR
        else:
            wanted = targets
        return LoraConfig(
            task_type=architecture.peft_task_type,
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=wanted,
        )


LORA_SHAPE = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules")
"""The flags that say what a new adapter is like."""


def four_bit() -> BitsAndBytesConfig:
    """How a base is loaded in 4 bits for QLoRA (Dettmers et al. 2023): NF4 with double quantisation.

    Raises:
        ValueError: There is no GPU with CUDA.
        ImportError: bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise ValueError(
            "Expected a GPU with CUDA for --load_in_4bit, found none: bitsandbytes computes in 4 bits there alone. Leave it out."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ImportError("No module named 'bitsandbytes'", name="bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
    )
