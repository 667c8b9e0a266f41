"""What tells whether an opened part was changed in place: its settings, and its weights beside those of its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.chat import system_prompt_of
from ..reranking.cross_encoder import CrossEncoderReranker
from ..retrieval.faiss_indexes import search_depths
from ..retrieval.index import UpstreamIndex


def settings_of(part: Any) -> Any:
    """The settings that are saved with a part, in a form that compares equal as long as nobody changes one of them.

    Weights are not among them ([`holds_weights`]), and neither are vectors and examples, which nobody changes in place.
    """
    if isinstance(part, CrossEncoderReranker):
        model, tokenizer = settings_of(part.model), settings_of(part.processing_class)
        return model, tokenizer, part.include_answers, part.max_length
    if isinstance(part, PreTrainedTokenizerBase):
        sides = part.padding_side, part.truncation_side
        read = part.chat_template, system_prompt_of(part)
        return len(part), part.special_tokens_map, part.model_max_length, *read, *sides
    if isinstance(part, UpstreamIndex):
        return search_depths(part.faiss_index)
    if isinstance(part, PreTrainedModel) or hasattr(part, "peft_config"):
        config, generation = part.config, getattr(part, "generation_config", None)
        adapters = {name: adapter.to_dict() for name, adapter in getattr(part, "peft_config", {}).items()}
        return str(part.dtype), config.to_dict(), generation and generation.to_dict(), adapters
    return None


def holds_weights(
    files: Mapping[str, Path], part: CrossEncoderReranker | torch.nn.Module, *, knows_all: bool = False
) -> bool:
    """Whether a model or reranker has the weights that its files have.

    Args:
        files: Paths of the part's files, by their names.
        part: The opened part. Its weights may be of another data type than those in the files.
        knows_all: Whether it must have a weight of each name in the files, as where these need not be its own.
    """
    model = part.model if isinstance(part, CrossEncoderReranker) else part
    if "adapter_config.json" in files:
        from peft import get_peft_model_state_dict

        weights = get_peft_model_state_dict(model, save_embedding_layers=False)
    else:
        weights = model.state_dict()
    stored: dict[str, torch.Tensor] = {}
    for path in files.values():
        if path.suffix == ".safetensors":
            stored |= load_file(path)
    if knows_all and not stored.keys() <= weights.keys():
        return False
    return all(
        key not in weights or torch.equal(weights[key].cpu(), value.to(weights[key].dtype))
        for key, value in stored.items()
    )
