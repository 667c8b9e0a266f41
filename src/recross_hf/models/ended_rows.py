"""Greedy decoding of a batch that rows leave once their answers have ended.

`generate` goes on with all rows of a batch until the last one ends. Where most answers are a word or two and one is a sentence, that is
most of the work.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel, StoppingCriteria
from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import BaseModelOutput

from .base import unwrapped
from .shared_prefix import PLAIN_LAYERS, goes_on, reads_token_by_token

LEAST_LEAVING = 4
"""Rows that leave a batch at once, at least: going on without them costs a copy of the others' keys and values."""


class _HalfHaveEnded(StoppingCriteria):
    """Stops all rows of a batch where half of them, and not all, have ended."""

    def __init__(self, start: int, ends: torch.Tensor) -> None:
        self.start, self.ends = start, ends

    def ended(self, sequences: torch.Tensor) -> torch.Tensor:
        """Whether each row holds an end; what follows the first one is padding."""
        return torch.isin(sequences[:, self.start :], self.ends).any(dim=1)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        number = self.ended(input_ids).sum()
        stops = (number >= max(LEAST_LEAVING, len(input_ids) / 2)) & (number < len(input_ids))
        return stops.expand(len(input_ids))


def can_leave(model: PreTrainedModel) -> bool:
    """Whether a batch of this model can go on without some of its rows: all that it remembers of each is keys and values."""
    layers = DynamicCache(config=unwrapped(model).config.get_text_config(decoder=True)).layers
    if not reads_token_by_token(model) or not all(type(layer) in PLAIN_LAYERS for layer in layers):
        return False
    # Keys and values on several devices cannot be selected by rows that are on one.
    if len({*getattr(unwrapped(model), "hf_device_map", {}).values()}) > 1:
        return False
    # Experts that take so many tokens of a batch answer a row otherwise where others have left.
    if hasattr(model.config, "expert_capacity"):
        return False
    if not model.config.is_encoder_decoder:
        return goes_on(model)
    taken = inspect.signature(unwrapped(model).forward).parameters.keys()
    return {"encoder_outputs", "decoder_attention_mask", "past_key_values"} <= taken


def generate_without_ended(
    model: Any,
    *,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    past_key_values: Cache | None = None,
    eos_token_id: list[int],
    pad_token_id: int,
    max_new_tokens: int,
    **settings: Any,
) -> torch.Tensor:
    """The tokens that `model.generate` returns for the same arguments, where it decodes greedily and goes on in parts.

    Args:
        model: Model that [`can_leave`] rows, with or without PEFT.
        input_ids: Tokens `[n, length]`, padded on the left if the model is decoder-only.
        attention_mask: Which of them are no padding, `[n, length]`.
        past_key_values: Keys and values of the first columns, where they are read already.
        eos_token_id: The tokens that end an answer.
        pad_token_id: The token that fills up a row that has ended.
        max_new_tokens: Tokens that an answer may have.
        settings: Other settings of `generate`, see [`goes_on_in_parts`][recross_hf.models.decoding.goes_on_in_parts].

    Returns:
        Tokens `[n, longest]`, where the longest row has at most `max_new_tokens` after its prompt, or after its decoder's first.
    """
    inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
    start, written = input_ids.shape[1], 0
    if model.config.is_encoder_decoder:
        encoded = unwrapped(model).get_encoder()(**inputs)
        inputs, start = {"encoder_outputs": encoded, "attention_mask": attention_mask}, 1
    criterion = _HalfHaveEnded(start, input_ids.new_tensor(eos_token_id))
    settings |= {"stopping_criteria": [criterion], "return_dict_in_generate": True}
    settings |= {"eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
    rows, found = torch.arange(len(input_ids), device=input_ids.device), []
    while True:
        cache = {} if past_key_values is None else {"past_key_values": past_key_values}
        output = model.generate(**inputs, **cache, **settings, max_new_tokens=max_new_tokens - written)
        found.append((rows, output.sequences))
        written = output.sequences.shape[1] - start
        left = (~criterion.ended(output.sequences)).nonzero()[:, 0]
        if len(left) == 0 or written == max_new_tokens:
            return _together(found, pad_token_id)
        rows, past_key_values = rows[left], output.past_key_values
        past_key_values.batch_select_indices(left)
        inputs = _going_on(inputs, left, output.sequences[left])


def _going_on(inputs: Mapping[str, Any], left: torch.Tensor, sequences: torch.Tensor) -> dict[str, Any]:
    """The arguments of `generate` by which the rows that are left go on from what is written of them."""
    mask = inputs["attention_mask"][left]
    if "encoder_outputs" not in inputs:
        written = mask.new_ones(len(mask), sequences.shape[1] - mask.shape[1])
        return {"input_ids": sequences, "attention_mask": torch.cat([mask, written], dim=1)}
    return {
        "encoder_outputs": BaseModelOutput(last_hidden_state=inputs["encoder_outputs"].last_hidden_state[left]),
        "attention_mask": mask,
        "decoder_input_ids": sequences,
        # By its width `generate` knows that these are all tokens so far, not new ones alone.
        "decoder_attention_mask": torch.ones_like(sequences),
    }


def _together(found: list[tuple[torch.Tensor, torch.Tensor]], pad: int) -> torch.Tensor:
    """All rows, each as it was last seen; the first part has all of them."""
    longest = max(sequences.shape[1] for _, sequences in found)
    whole = found[0][1].new_full((len(found[0][1]), longest), pad)
    for rows, sequences in found:
        whole[rows, : sequences.shape[1]] = sequences
    return whole
