"""What all prompts of a call begin with, read once: examples in context, a long instruction, a system prompt."""

from __future__ import annotations

import copy
import inspect
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from .base import TokenIds, unwrapped
from .heads import has_loss_of_its_own, logits_at

LEAST_TOKENS = 32
"""Tokens that a beginning has at least, to be read on its own."""
LEAST_SAVED = 0.25
"""Share of all tokens that need not be read, at least."""
PLAIN_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
"""What remembers keys and values of each token, and nothing else."""
HELD_A_TOKEN = 2
"""How many tokens a batch may hold the keys and values of, for each token that it may read: these take memory, too."""


class SharedPrefix(NamedTuple):
    """The keys and values of a beginning that all prompts share; by default there is none.

    A batch is padded on the left, as without one: first come the paddings of a row, then the beginning, then the rest. Of its columns,
    the cache stands for as many as the beginning has tokens, so that those of a shorter row hold its paddings and less of the beginning,
    whose last tokens are read again. Windows of attention, which count columns, so see what they see without a cache.

    Attributes:
        length: Tokens that the beginning has.
        cache: Their keys and values, of one row.
    """

    length: int = 0
    cache: DynamicCache | None = None

    def batch_lengths(self, token_ids: TokenIds) -> list[int]:
        """The tokens that each prompt counts in a batch: those that are left to read, and no fewer than memory allows."""
        if self.cache is None:
            return [len(ids) for ids in token_ids]
        return [max(len(ids) - self.length, -(-len(ids) // HELD_A_TOKEN)) for ids in token_ids]

    def before(self, token_ids: TokenIds, *, copies: int = 1) -> DynamicCache | None:
        """A cache of the first columns of a batch that is padded on the left, to be grown; None where it is read as a whole.

        Args:
            token_ids: The prompts of the batch.
            copies: How many rows each prompt has, one after the other, as with beams.
        """
        longest = max(map(len, token_ids))
        paddings = [longest - len(ids) for ids in token_ids]
        if self.cache is None or max(paddings) > self.length:
            return None
        places = torch.arange(self.length) - torch.tensor(paddings).repeat_interleave(copies)[:, None]
        places = places.clamp(min=0)  # what stands for padding is masked
        grown = copy.copy(self.cache)
        layers: list[Any] = [copy.copy(layer) for layer in self.cache.layers]
        for layer in layers:
            here = places.to(layer.keys.device)
            layer.keys, layer.values = (of[0][:, here].transpose(0, 1) for of in (layer.keys, layer.values))
        grown.layers = layers
        return grown


def shared_prefix(model: PreTrainedModel, token_ids: TokenIds) -> SharedPrefix:
    """Reads what all prompts begin with, where that pays and what is read next finds what it would find without it.

    Args:
        model: Decoder-only model, with or without PEFT, which reads all the prompts with the same adapters.
        token_ids: All prompts of a call.
    """
    if model.config.is_encoder_decoder or not goes_on(model) or not reads_token_by_token(model):
        return SharedPrefix()
    cache = DynamicCache(config=model.config.get_text_config())
    layers: list[Any] = cache.layers
    # A layer with a window forgets what lies before it.
    windows = [layer.sliding_window - 1 for layer in layers if isinstance(layer, DynamicSlidingWindowLayer)]
    length = min([_common_length(token_ids), *windows])
    saved = length * (len(token_ids) - 1)
    if length < LEAST_TOKENS or saved < LEAST_SAVED * sum(map(len, token_ids)):
        return SharedPrefix()
    read = torch.tensor([token_ids[0][:length]], device=model.device)
    places = torch.arange(length, device=model.device)[None]
    logits_at(
        model,
        places == length - 1,
        input_ids=read,
        attention_mask=torch.ones_like(read),
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
    )
    if not is_plain(cache, length) or any(
        not layer.is_initialized or layer.keys.shape[2] != length for layer in layers
    ):
        return SharedPrefix()
    return SharedPrefix(length, cache)


def _common_length(token_ids: TokenIds) -> int:
    """How many tokens all prompts begin with; of each, one at least is left, after which its answer begins."""
    if not token_ids:
        return 0
    first, last = min(token_ids), max(token_ids)  # what these two share, all that stand between them share
    shortest = min(map(len, token_ids))
    return next((place for place in range(shortest - 1) if first[place] != last[place]), max(shortest - 1, 0))


def goes_on(model: PreTrainedModel) -> bool:
    """Whether a model can be told which keys and values it goes on from, and at which positions."""
    # Losses of routers need the mask of what is read alone.
    return (
        not has_loss_of_its_own(model)
        and {"position_ids", "past_key_values"} <= inspect.signature(unwrapped(model).forward).parameters.keys()
    )


def is_plain(cache: DynamicCache, length: int) -> bool:
    """Whether all that a model remembers of what it read is keys and values, row by row: no state of a recurrent layer."""
    plain = all(type(layer) in PLAIN_LAYERS for layer in cache.layers)
    return plain and cache.get_seq_length() == length


def reads_token_by_token(model: Any) -> bool:
    """Whether the keys and values of a token depend on it and those before it alone, not on how many come after."""
    positions = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    kinds = [positions, *(of for of in positions.values() if isinstance(of, dict))]
    # Phi-3's positions, for one, are others in a long prompt from the first token on.
    if any(kind.get("rope_type") == "longrope" for kind in kinds):
        return False
    # Learned prompts stand before the tokens; X-LoRA and activated LoRA look at the whole prompt.
    return all(
        config.peft_type == "LORA" and not getattr(config, "alora_invocation_tokens", None)
        for config in getattr(model, "peft_config", {}).values()
    )
