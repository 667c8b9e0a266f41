"""A start for cross-attention that can copy: a decoder grown from an encoder writes words of its input from the first step on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional
from transformers import EncoderDecoderModel, PreTrainedTokenizerBase

from .base import longest_input
from .modes import evaluating

# The penalty of the least squares below, in squared units of a hidden state, whose squares sum to its width over some ten
# thousand tokens.
RIDGE = 10.0
REMEDY = "Or start at random: without `copied_texts` (--copying_start false)."


@torch.no_grad()
def start_copying(
    model: EncoderDecoderModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int = 128
) -> None:
    """Sets the cross-attention of `model`, grown from one encoder, so that it copies.

    Least squares find a linear map from the encoder's last states to the word embeddings of the tokens they stand for. It
    becomes the values of every cross-attention, so that what is attended to can be written. In the last decoder layer, keys
    become a second map, to the embeddings of the tokens *before*, and queries the decoder's own state, which is near the
    embedding of the token written last: it attends to what follows an earlier occurrence of that token (an induction head,
    Olsson et al. 2022, arXiv 2209.11895, by construction). Everything remains free to be trained.

    ```python
    model, tokenizer = warm_start_seq2seq("sentence-transformers/all-MiniLM-L6-v2", encoder_layers=3)
    start_copying(model, tokenizer, upstream["input"][:512])  # what `copied_texts` does
    ```

    Args:
        model: A model grown from an encoder; its weights are changed where they are.
        tokenizer: The model's tokenizer.
        texts: A few hundred inputs like those that the model is to read.
        max_length: Tokens that each text is cut to.

    Raises:
        ValueError: The texts have fewer tokens than a state has numbers, so that no map can be told, or word
            embeddings are not as wide as the encoder's states.
    """
    encoder: Any = model.encoder
    decoder: Any = model.decoder
    embeddings = decoder.get_input_embeddings().weight
    width = encoder.config.hidden_size
    if embeddings.shape[1] != width:
        raise ValueError(
            f"Expected word embeddings as wide as the encoder's states ({width}), which are to be mapped to them, found a width of "
            f"{embeddings.shape[1]}. {REMEDY}"
        )
    # Where positions are counted from the padding token, as RoBERTa's, two fewer can be used.
    max_length = min(max_length, longest_input(encoder, tokenizer) - 2)
    states, own, before = [], [], []
    with evaluating(encoder):
        for text in texts:
            ids = tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")["input_ids"]
            hidden = encoder(input_ids=ids.to(model.device)).last_hidden_state[0]
            # Neither the mark at the start nor that at the end is a word; the first word has none before it.
            states.append(hidden[2:-1])
            own.append(ids[0, 2:-1])
            before.append(ids[0, 1:-2])
    found = torch.cat(states) if states else torch.zeros(0, width)
    if len(found) <= width:
        raise ValueError(
            f"Expected texts of more than {width} tokens in all, as many as a state has numbers, found {len(found)} in "
            f"{len(texts)} texts. Give more of them. {REMEDY}"
        )
    value_weight, value_bias = _least_squares(found, _embedded(embeddings, own))
    key_weight, key_bias = _least_squares(found, _embedded(embeddings, before))
    same = torch.eye(width, device=embeddings.device)
    layers = decoder.base_model.encoder.layer
    for layer in layers:
        attention = layer.crossattention
        attention.self.value.weight.copy_(value_weight)
        attention.self.value.bias.copy_(value_bias)
        attention.output.dense.weight.copy_(same)
        attention.output.dense.bias.zero_()
    last = layers[-1].crossattention.self
    last.key.weight.copy_(key_weight)
    last.key.bias.copy_(key_bias)
    last.query.weight.copy_(same)
    last.query.bias.zero_()


def _embedded(embeddings: torch.Tensor, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
    """Word embeddings as a layer has them: of mean 0 and variance 1."""
    return functional.layer_norm(embeddings[torch.cat(list(tokens)).to(embeddings.device)], embeddings.shape[1:])


def _least_squares(states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight `[d, d]` and bias `[d]` of the linear layer that maps `states` to `targets`, both `[n, d]`."""
    # In float64, on the CPU: the states of a batch are nearly collinear, and this is done once. Not every device has float64.
    inputs = torch.cat([states, torch.ones_like(states[:, :1])], dim=1).cpu().double()
    penalty = RIDGE * torch.eye(inputs.shape[1], dtype=inputs.dtype)
    solution = torch.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ targets.cpu().double())
    return solution[:-1].T.to(states), solution[-1].to(states)
