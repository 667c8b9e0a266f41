"""A multi-task upstream model where none is at hand: a sequence-to-sequence model grown from a pretrained encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    EncoderDecoderModel,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from .architectures import SEQUENCE_TO_SEQUENCE, architecture_of
from .base import Architecture
from .copy_initialization import start_copying


def warm_start_seq2seq(
    encoder_name_or_path: str,
    *,
    encoder_layers: int | None = None,
    decoder_layers: int = 2,
    max_new_tokens: int = 64,
    freeze_embeddings: bool = False,
    freeze_encoder_layers: int = 0,
    copied_texts: Sequence[str] | None = None,
) -> tuple[EncoderDecoderModel, PreTrainedTokenizerBase]:
    """Builds an `EncoderDecoderModel` whose two halves start from the first layers of a BERT-like encoder.

    The cross-attention of the decoder starts at random (Rothe et al. 2020, arXiv 1907.12461, "BERT2BERT") or, given `copied_texts`,
    so that it copies; where the encoder was published without the head of its pretraining, that of the decoder starts near
    the identity.

    Args:
        encoder_name_or_path: A BERT-like model (BERT, RoBERTa, MiniLM, ...), on disk or on the Hub.
        encoder_layers: Layers that the encoder keeps, from the first; all by default.
        decoder_layers: Layers that the decoder keeps, from the first.
        max_new_tokens: Longest answer in tokens, written into the generation configuration.
        freeze_embeddings: Keep the pretrained word embeddings of both halves as they are: less to train and to store
            in optimizer states.
        freeze_encoder_layers: Keep this many of the encoder's first layers as they are, too.
        copied_texts: A few hundred inputs like those that the model is to read, for [`start_copying`]. A short encoder serves
            it best: the more layers, the less its states say of their own token.

    Returns:
        The model in float32 and its tokenizer.
    """
    layers: dict[str, Any] = {} if encoder_layers is None else {"encoder_num_hidden_layers": encoder_layers}
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        encoder_name_or_path,
        num_hidden_layers=decoder_layers,
        is_decoder=True,
        add_cross_attention=True,
        output_loading_info=True,
    )
    decoder, loading = loaded
    _let_pass(decoder, loading["missing_keys"])
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(encoder_name_or_path, decoder_model=decoder, **layers)
    model = model.float()
    tokenizer = AutoTokenizer.from_pretrained(encoder_name_or_path)
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    if start is None or end is None or tokenizer.pad_token_id is None:
        raise ValueError(
            f"Expected the tokenizer of {encoder_name_or_path} to have cls, sep and pad tokens, found "
            f"{tokenizer.special_tokens_map}. Choose a BERT-like encoder."
        )
    model.config.decoder_start_token_id = start
    model.config.pad_token_id = tokenizer.pad_token_id
    model.config.eos_token_id = end
    model.generation_config = GenerationConfig(
        decoder_start_token_id=start,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=end,
        max_new_tokens=max_new_tokens,
    )
    if copied_texts is not None:
        start_copying(model, tokenizer, copied_texts)
    freeze(model, embeddings=freeze_embeddings, encoder_layers=freeze_encoder_layers)
    return model, tokenizer


def freeze(model: PreTrainedModel, *, embeddings: bool = False, encoder_layers: int = 0) -> None:
    """Keeps the word embeddings of a model, and the first layers that read its input, from being trained.

    Args:
        model: A sequence-to-sequence or decoder-only model; its parameters' `requires_grad` is changed where it is.
        embeddings: Whether to keep the word embeddings, of both halves where each has its own (and with them a tied output layer).
        encoder_layers: Layers to keep, from the first, of the half that reads the input: of the encoder, or of a decoder-only
            model. Layers that see or hear are not among them.

    Raises:
        ValueError: The model has fewer layers than that, or none in a list, or `encoder_layers` is negative. Nothing is changed then.
    """
    architecture = architecture_of(model)
    if encoder_layers:
        layers = _text_layers(architecture, model)
        if not 0 < encoder_layers <= len(layers):
            raise ValueError(
                f"Expected from 0 to {len(layers)} layers to freeze, as many as read the input, found {encoder_layers}. Set "
                "`encoder_layers` (--freeze_encoder_layers) to one of these."
            )
        for layer in layers[:encoder_layers]:
            layer.requires_grad_(False)
    if embeddings:
        halves = (model, model.get_decoder()) if architecture is SEQUENCE_TO_SEQUENCE else (model,)
        for half in halves:
            half.get_input_embeddings().weight.requires_grad_(False)


def _text_layers(architecture: Architecture, model: PreTrainedModel) -> torch.nn.ModuleList:
    reader = architecture.reader(model)
    # A decoder-only model may see, too, and have its vision tower first (Gemma 3): what reads text is its decoder.
    text = reader if architecture is SEQUENCE_TO_SEQUENCE else reader.get_decoder()
    layers = next((module for module in text.modules() if isinstance(module, torch.nn.ModuleList)), None)
    if layers is None:
        raise ValueError(
            f"Expected a model whose layers are in a `torch.nn.ModuleList`, to freeze the first of them, found none in "
            f"{type(text).__name__}. Freeze them with `requires_grad_(False)`, and leave `encoder_layers` "
            "(--freeze_encoder_layers) at 0."
        )
    return layers


@torch.no_grad()
def _let_pass(decoder: PreTrainedModel, missing: Sequence[str]) -> None:
    """Makes three times the identity of the linear layer before the output embeddings, where the checkpoint had none.

    Its activation keeps what is positive and cuts what is negative, after which the direction is still much like that of the
    embedding; a random layer loses it.
    """
    for name, module in decoder.named_modules():
        if name.endswith(("predictions.transform.dense", "lm_head.dense")) and f"{name}.weight" in missing:
            # Times three, so that the activation is nearly linear for what is positive.
            module.weight.copy_(3 * torch.eye(*module.weight.shape))
            module.bias.zero_()
