"""Weights in GGUF files: transformers makes plain ones of them, which are trained, indexed and saved like any others."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import PreTrainedModel
from transformers.utils import is_gguf_available


def unpacking() -> dict[str, Any]:
    """Arguments of `from_pretrained` that unpack all weights, also where a device could compute with the packed ones.

    Raises:
        ImportError: The package that reads such files is not installed.
    """
    if not is_gguf_available():
        raise ImportError(
            "Expected the package gguf to read a GGUF file, found none that is new enough. Install `recross_hf[gguf]`.",
            name="gguf",
        )
    # Earlier versions of transformers know no packed weights, and unpack them always.
    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def as_plain(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose weights were unpacked, without what says that they are packed: transformers would not save it."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    vars(model.config).pop("quantization_config", None)
    return model
