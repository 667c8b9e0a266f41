"""What a kind of text-to-text model must say of itself, and how much it can read."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .collators import Batch

logger = logging.getLogger(__name__)

UNLIMITED = 1 << 30
"""Tokens that a model takes whose positions are relative; more than any text has."""

TokenIds = list[list[int]]


class Architecture(ABC):
    """How a kind of model reads an input and writes an answer.

    Attributes:
        auto_class: Auto class that loads such models.
        peft_task_type: The `task_type` of a `LoraConfig` for them.
    """

    auto_class: Any
    peft_task_type: str

    @abstractmethod
    def reader(self, model: PreTrainedModel) -> PreTrainedModel:
        """The part of a model that turns an input's tokens into hidden states; `model` may be a PEFT model."""

    @abstractmethod
    def read(self, reader: PreTrainedModel, **inputs: torch.Tensor) -> torch.Tensor:
        """The last hidden states `[n, length, d]` of padded inputs."""

    @abstractmethod
    def reading(self, processing_class: PreTrainedTokenizerBase) -> dict[str, str]:
        """How an input is read, beyond what else an encoder's identity says of its tokenizer, as JSON values."""

    @abstractmethod
    def end_id(self, processing_class: PreTrainedTokenizerBase) -> int | None:
        """The token that ends an answer; None for a tokenizer without one."""

    @abstractmethod
    def usage(self, processing_class: PreTrainedTokenizerBase, settings: str) -> str:
        """Code for a model card that generates an answer; `settings` are further arguments of `generate`."""

    @abstractmethod
    def longest_prompt(
        self,
        model: PreTrainedModel,
        processing_class: PreTrainedTokenizerBase,
        max_answer_length: int,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> int:
        """How many tokens an input may have, where the answer may have `max_answer_length`.

        Args:
            model: The model, which may be a PEFT model.
            processing_class: The model's tokenizer.
            max_answer_length: Tokens that the answer may have.
            pad_to_multiple_of: Multiple to which the [`collator`] pads: padding must not lead beyond what the model takes.

        Raises:
            ValueError: Answers of that length, or batches padded so, exceed the model.
        """

    @abstractmethod
    def prompt_ids(self, processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
        """Inputs as token ids, cut to `max_length`, as an index, training and generation read them."""

    @abstractmethod
    def answer_ids(self, processing_class: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenIds:
        """Answers as token ids, cut to `max_length`."""

    @abstractmethod
    def collator(
        self,
        processing_class: PreTrainedTokenizerBase,
        model: PreTrainedModel,
        *,
        pad_to_multiple_of: int | None = None,
    ) -> Callable[[list[dict[str, Any]]], Batch]:
        """Makes training batches of items with `input_ids` and, if they are labelled, `labels`."""

    @abstractmethod
    def padding_side(self, processing_class: PreTrainedTokenizerBase) -> str:
        """The side on which inputs are padded to generate from them."""

    @abstractmethod
    def prompts_of(self, batch: Batch, pad: int) -> Batch:
        """The prompts to generate from, of a batch of the collator."""

    @abstractmethod
    def answers_of(self, batch: Batch) -> torch.Tensor:
        """The labels of a batch of the collator, padded with -100."""

    @abstractmethod
    def continuations(self, generated: torch.Tensor, prompts: torch.Tensor) -> torch.Tensor:
        """The answers in what `model.generate` gave for these prompts."""


def unwrapped(model: PreTrainedModel) -> PreTrainedModel:
    """The model below PEFT's wrapper, if there is one."""
    wrapper: Any = model
    return wrapper.get_base_model() if hasattr(model, "get_base_model") else model


def vocabulary_size(model: PreTrainedModel) -> int:
    """How many logits a model gives for a token."""
    return int(unwrapped(model).config.get_text_config(decoder=True).vocab_size)


def longest_input(reader: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> int:
    """How many tokens a model's reader can take; one with relative positions, such as T5's, has no limit: [`UNLIMITED`].

    Of others the tokenizer's `model_max_length` counts, too: RoBERTa has fewer positions than its configuration says.
    """
    config = reader.config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None and hasattr(config, "relative_attention_num_buckets"):
        return UNLIMITED  # what T5's tokenizer says is the length of its pretraining
    return min(positions or processing_class.model_max_length, processing_class.model_max_length)


def longest_answer(model: PreTrainedModel) -> int:
    """How many tokens a decoder of its own can write: [`UNLIMITED`], where its positions are relative or shared with the input."""
    if not model.config.is_encoder_decoder:
        return UNLIMITED
    positions = getattr(unwrapped(model).get_decoder().config.get_text_config(), "max_position_embeddings", None)
    return UNLIMITED if positions is None else int(positions)


def keep_truncation_side(processing_class: PreTrainedTokenizerBase) -> None:
    """Makes a tokenizer save the side that it cuts; of what was set since it was made, transformers saves what it was made with alone."""
    processing_class.init_kwargs["truncation_side"] = processing_class.truncation_side


def check_vocabulary(model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> None:
    """Makes sure, before any work, that a model has an embedding for each token of its tokenizer.

    Args:
        model: of any kind, with or without PEFT.

    Raises:
        ValueError: the tokenizer has more tokens.
    """
    halves = [unwrapped(model)]
    if model.config.is_encoder_decoder and hasattr(halves[0], "get_decoder"):
        halves.append(halves[0].get_decoder())
    for half in halves:
        embeddings = half.get_input_embeddings()
        # Spread over devices, a weight need not have all its rows here; the module knows their number.
        rows = getattr(embeddings, "num_embeddings", None)
        if rows is None:
            assert isinstance(embeddings.weight, torch.Tensor)
            rows = len(embeddings.weight)
        if len(processing_class) > rows:
            raise ValueError(
                f"Expected an embedding for each of the {len(processing_class)} tokens of the tokenizer, found {rows} in "
                f"{type(half).__name__}: tokens were added to the tokenizer, or it is that of another model. Call "
                "`model.resize_token_embeddings(len(tokenizer))` and train the new rows, or load the tokenizer that belongs to the "
                "model."
            )


def check_finite_weights(model: torch.nn.Module) -> None:
    """Makes sure, before any work, that no weight is NaN or infinite: training goes on from such ones without an error.

    Raises:
        ValueError: A weight is; the message names the parameter.
    """
    for name, weights in model.named_parameters():
        # The least and the most are NaN where anything is, and take no memory of their own.
        if weights.numel() and not weights.is_meta and not all(map(torch.isfinite, torch.aminmax(weights.detach()))):
            raise ValueError(
                f"Expected finite weights to train from, found NaN or infinity in {name} of {type(model).__name__}. An earlier training "
                "diverged, or the file is damaged: take the checkpoint before, or load the model again, in float32."
            )


@lru_cache
def say_inputs_are_cut(max_length: int) -> None:
    """Warns, once for each length, that inputs lose what is beyond it."""
    logger.warning(
        "Expected inputs of at most %d tokens, found longer ones, which are cut. Raise `max_input_length` (of an encoder: `max_length`), "
        "where the model takes more; this is said once.",
        max_length,
    )


def less_padding(positions: int, pad_to_multiple_of: int | None) -> int:
    """The most positions that can be filled up to a multiple without exceeding `positions`."""
    fitting = positions - positions % (pad_to_multiple_of or 1)
    if not fitting:
        raise ValueError(
            f"Expected `pad_to_multiple_of` to be no more than the model takes, {positions} tokens, found "
            f"{pad_to_multiple_of} tokens."
        )
    return fitting
