"""A multi-task upstream model where none is at hand: a sequence-to-sequence model grown from a pretrained encoder."""

from __future__ import annotations

from transformers import AutoTokenizer, EncoderDecoderModel, GenerationConfig, PreTrainedTokenizerBase


def warm_start_seq2seq(
    encoder_name_or_path: str,
    *,
    encoder_layers: int | None = None,
    decoder_layers: int = 2,
    max_new_tokens: int = 64,
    freeze_embeddings: bool = False,
    freeze_encoder_layers: int = 0,
) -> tuple[EncoderDecoderModel, PreTrainedTokenizerBase]:
    """Builds an `EncoderDecoderModel` whose two halves start from the first layers of a BERT-like encoder.

    Only the cross-attention of the decoder starts at random (Rothe et al. 2020, arXiv 1907.12461, "BERT2BERT").

    Args:
        encoder_name_or_path: a BERT-like model (BERT, RoBERTa, MiniLM, ...), on disk or on the Hub.
        encoder_layers: how many of its layers the encoder keeps; all by default.
        decoder_layers: how many of its layers the decoder keeps.
        max_new_tokens: the longest answer in tokens, written into the generation configuration.
        freeze_embeddings: keep the pretrained word embeddings of both halves as they are: less to train and to store
            in optimizer states.
        freeze_encoder_layers: keep this many of the encoder's first layers as they are, too.

    Returns:
        The model in float32 and its tokenizer.
    """
    layers = {"decoder_num_hidden_layers": decoder_layers}
    if encoder_layers is not None:
        layers["encoder_num_hidden_layers"] = encoder_layers
    model = EncoderDecoderModel.from_encoder_decoder_pretrained(encoder_name_or_path, encoder_name_or_path, **layers)
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
    if freeze_embeddings:
        for half in (model.encoder, model.decoder):
            half.get_input_embeddings().weight.requires_grad_(False)
    for layer in model.encoder.encoder.layer[:freeze_encoder_layers]:
        layer.requires_grad_(False)
    return model, tokenizer
