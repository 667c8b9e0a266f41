"""The model and the encoder that `recross index` names, loaded here or on a worker of a cluster."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .. import MeanPooledEncoder, SentenceEncoder
from ..core.distributed import process_state
from ..models.adapters import load_upstream_model, load_upstream_tokenizer
from .chat_format import ChatArguments


def upstream_model(args: Any, chat: ChatArguments) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The upstream model on the device of this process, and its tokenizer.

    Args:
        args: What `recross index` takes.
        chat: How a decoder-only model reads inputs.
    """
    loaded: torch.nn.Module = load_upstream_model(args.model_name_or_path, **args.of_model)
    model = cast(PreTrainedModel, loaded.to(process_state().device))
    tokenizer = load_upstream_tokenizer(args.model_name_or_path, **args.packed)
    chat.apply_to(tokenizer, model)
    return model, tokenizer


def encoder_of(
    args: Any, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> MeanPooledEncoder | SentenceEncoder:
    """The encoder: the upstream model's own, or the one that is named."""
    if args.encoder_name_or_path is not None:
        return sentence_encoder(args)
    autocast_dtype = torch.bfloat16 if args.bf16 else None
    return MeanPooledEncoder(
        model, tokenizer, max_length=args.max_input_length, autocast_dtype=autocast_dtype, pooling=args.pooling
    )


def sentence_encoder(args: Any) -> SentenceEncoder:
    """The sentence-transformers model that is named as the encoder."""
    return SentenceEncoder.from_pretrained(
        args.encoder_name_or_path, revision=args.encoder_revision, prompt=args.encoder_prompt
    )


def encoder_alone(args: Any, chat: ChatArguments) -> MeanPooledEncoder | SentenceEncoder:
    """The encoder, for a worker, which needs no model beside it."""
    if args.encoder_name_or_path is not None:
        return sentence_encoder(args)
    return encoder_of(args, *upstream_model(args, chat))
