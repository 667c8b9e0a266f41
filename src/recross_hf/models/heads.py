"""Logits where they are needed alone: the head of a decoder-only model often costs more than all of its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedModel

from .base import unwrapped
from .collators import Batch


def logits_at(
    model: torch.nn.Module, places: torch.Tensor, *, head_of: PreTrainedModel | None = None, **inputs: Any
) -> torch.Tensor:
    """The logits `[places.sum(), vocabulary]` that a model gives at some places of its inputs, row by row.

    All of the forward pass is the model's own, so that scaled or capped logits, adapters and wrappers count; the head is shown the hidden
    states of these places alone. A model whose forward pass calls no head of its own computes all logits, as ever.

    Args:
        model: Decoder-only model, which may be wrapped, as by PEFT or for several devices.
        places: Places of the tokens whose logits are asked for: bool `[n, length]`.
        head_of: The model below wrappers other than PEFT's; `model` by default.
        inputs: Arguments of the forward pass, no labels among them.
    """
    rows, columns = places.nonzero(as_tuple=True)
    length = places.shape[1]
    is_done = False

    def at_places(module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal is_done
        hidden = args[0]
        if hidden.dim() != 3 or hidden.shape[0] != len(places) or hidden.shape[1] < length:
            return None
        is_done = True
        # From the right: learned prompts (PEFT) come before the tokens.
        return hidden[rows, columns + (hidden.shape[1] - length)].unsqueeze(0), *args[1:]

    with _before_head(model if head_of is None else head_of, at_places):
        logits: torch.Tensor = model(**inputs).logits
    return logits[0] if is_done else logits[:, -length:][rows, columns]


@contextmanager
def contiguous_head(model: Any) -> Iterator[None]:
    """Within it, the head of a model is shown contiguous hidden states.

    The first step of `generate` computes logits of `hidden[:, -1:]`. Of such a slice and a weight that is frozen, as beside an adapter,
    PyTorch's linear layer makes a product of matrices in batches; on a CPU it copies the weight once a row for that.
    """
    with _before_head(model, lambda module, args: (args[0].contiguous(), *args[1:])):
        yield


def has_loss_of_its_own(model: PreTrainedModel) -> bool:
    """Whether the loss of a model is more than that of the answers' tokens: mixtures of experts may add one of their routers."""
    return bool(getattr(model.config.get_text_config(), "output_router_logits", False))


def answer_logits(
    model: torch.nn.Module, batch: Batch, *, head_of: PreTrainedModel | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `[n, vocabulary]` and labels `[n]` of all answers' tokens in a batch of [`CausalCollator`], row by row.

    Args:
        model: Decoder-only model, which may be wrapped.
        batch: Batch with `labels`.
        head_of: See [`logits_at`].
    """
    labels = batch["labels"]
    # A token is predicted where the one before it is.
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    places = following != -100
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    return logits_at(model, places, head_of=head_of, **inputs, use_cache=False), following[places]


def mean_token_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The mean loss over all tokens of a batch's answers, as in training but for label smoothing."""
    if model.config.is_encoder_decoder or has_loss_of_its_own(model):
        whole: Any = model
        loss: torch.Tensor = whole(**batch).loss
        return loss
    logits, labels = answer_logits(model, batch)
    return torch.nn.functional.cross_entropy(logits.float(), labels)


@contextmanager
def _before_head(model: Any, hook: Any) -> Iterator[None]:
    head = unwrapped(model).get_output_embeddings()
    if head is None:
        yield
        return
    handle = head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
