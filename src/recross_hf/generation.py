"""Texts from texts: batched generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .batching import longest_input, token_budget_batches


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
        token_budget: input tokens a batch, padding included; batches are made of inputs of like length.
        generate_kwargs: passed to `model.generate` (`num_beams`, `max_new_tokens`, ...).
    """
    if not len(inputs):
        return []
    max_length = min(max_input_length, longest_input(model.get_encoder(), processing_class))
    token_ids = processing_class(list(inputs), truncation=True, max_length=max_length)["input_ids"]
    texts = [""] * len(token_ids)
    training = model.training
    model.eval()
    try:
        with tqdm(total=len(texts), desc="Predicting", unit="ex", disable=not show_progress) as progress:
            for rows in token_budget_batches([len(ids) for ids in token_ids], token_budget):
                batch = processing_class.pad({"input_ids": [token_ids[row] for row in rows]}, return_tensors="pt")
                outputs = model.generate(
                    input_ids=batch["input_ids"].to(model.device),
                    attention_mask=batch["attention_mask"].to(model.device),
                    **generate_kwargs,
                )
                answers = processing_class.batch_decode(outputs, skip_special_tokens=True)
                for row, text in zip(rows, answers, strict=True):
                    texts[row] = text.strip()
                progress.update(len(rows))
    finally:
        model.train(training)
    return texts
