"""Texts from texts: batched generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import on_device, token_budget_batches
from .architectures import architecture_of
from .collators import pad_token_id, padded


@torch.inference_mode()
def generate_texts(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    *,
    max_input_length: int = 512,
    token_budget: int = 4096,
    show_progress: bool = False,
    **generate_kwargs: Any,
) -> list[str]:
    """Generates an answer for each input, in the order of the inputs.

    Args:
        model: sequence-to-sequence or decoder-only, with or without PEFT.
        token_budget: input tokens a batch, padding included; batches are made of inputs of like length.
        generate_kwargs: passed to `model.generate` (`num_beams`, `max_new_tokens`, ...).
    """
    if not len(inputs):
        return []
    architecture, pad = architecture_of(model), pad_token_id(processing_class)
    longest_answer = generate_kwargs.get("max_new_tokens") or model.generation_config.max_new_tokens or 20
    longest = architecture.longest_prompt(model, processing_class, longest_answer)
    token_ids = architecture.prompt_ids(processing_class, inputs, min(max_input_length, longest))
    side = architecture.padding_side(processing_class)
    texts = [""] * len(token_ids)
    training = model.training
    model.eval()
    try:
        with tqdm(total=len(texts), desc="Predicting", unit="ex", disable=not show_progress) as progress:
            for rows in token_budget_batches([len(ids) for ids in token_ids], token_budget):
                batch = on_device(padded([token_ids[row] for row in rows], pad, side), model.device)
                outputs = model.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    **{"pad_token_id": pad, **generate_kwargs},
                )
                answers = processing_class.batch_decode(
                    architecture.continuations(outputs, batch["input_ids"]), skip_special_tokens=True
                )
                for row, text in zip(rows, answers, strict=True):
                    texts[row] = text.strip()
                progress.update(len(rows))
    finally:
        model.train(training)
    return texts
