"""Texts from texts: batched generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import on_device, token_budget_batches
from ..core.progress import progress_bar
from ..data.inputs import input_texts
from .architectures import architecture_of
from .base import check_vocabulary, longest_answer, vocabulary_size
from .collators import pad_token_id, padded
from .decoding import check_asked, end_ids, goes_on_from_cache, goes_on_in_parts, in_force, one_answer
from .ended_rows import can_leave, generate_without_ended
from .heads import contiguous_head
from .modes import evaluating
from .shared_prefix import SharedPrefix, shared_prefix


class Answer(NamedTuple):
    """A generated text, and whether the model found an end to it before the tokens that it may have ran out."""

    text: str
    is_ended: bool


def generate_texts(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    *,
    max_input_length: int = 512,
    token_budget: int = 4096,
    around_batch: Callable[[Sequence[int]], AbstractContextManager[None]] | None = None,
    show_progress: bool = False,
    **generate_kwargs: Any,
) -> list[str]:
    """Generates an answer for each input, in the order of the inputs: greedily, or with the beams of the call or of the model.

    A model that ships `do_sample` does not sample here unless `do_sample=True` is passed. What else it ships and is not passed holds,
    see [`decoding_in_force`].

    Args:
        model: A sequence-to-sequence or decoder-only model, with or without PEFT.
        processing_class: The model's tokenizer.
        inputs: The texts, or the conversations, to answer.
        max_input_length: Tokens that an input is cut to, or to what the model takes.
        token_budget: Input tokens a batch, padding included; batches are made of inputs of like length. Where all inputs of a
            decoder-only model begin alike, that is read once, and a batch has up to twice as many tokens with it.
        around_batch: Gives the context in which a batch is answered, by the positions of its inputs.
        show_progress: Show a progress bar.
        generate_kwargs: Arguments of `model.generate` (`num_beams`, `max_new_tokens`, ...).

    Raises:
        ValueError: An argument would be ignored, or asks for more than one text an input.
    """
    answers = generate_answers(
        model,
        processing_class,
        inputs,
        max_input_length=max_input_length,
        token_budget=token_budget,
        around_batch=around_batch,
        show_progress=show_progress,
        **generate_kwargs,
    )
    return [answer.text for answer in answers]


@torch.inference_mode()
def generate_answers(
    model: PreTrainedModel,
    processing_class: PreTrainedTokenizerBase,
    inputs: Sequence[str],
    *,
    max_input_length: int = 512,
    token_budget: int = 4096,
    around_batch: Callable[[Sequence[int]], AbstractContextManager[None]] | None = None,
    show_progress: bool = False,
    **generate_kwargs: Any,
) -> list[Answer]:
    """[`generate_texts`] with whether each answer ended; the arguments are the same.

    Raises:
        ValueError: An argument would be ignored, or asks for more than one text an input.
    """
    inputs = input_texts(inputs)
    if not inputs:
        return []
    architecture, pad = architecture_of(model), pad_token_id(processing_class)
    check_asked(generate_kwargs)
    check_vocabulary(model, processing_class)
    settings = one_answer(model, processing_class) | generate_kwargs
    passed = generate_kwargs.get("generation_config")
    if passed is not None and "do_sample" not in generate_kwargs:
        settings["do_sample"] = bool(passed.do_sample)
    if settings.get("max_new_tokens") is not None:
        settings["max_new_tokens"] = min(settings["max_new_tokens"], longest_answer(model))
        settings.setdefault("max_length", None)  # that of the model would be warned of in each batch
    room = generate_kwargs.get("max_new_tokens") or model.generation_config.max_new_tokens or 20
    longest = architecture.longest_prompt(model, processing_class, room)
    room = settings.get("max_new_tokens") or room
    token_ids = architecture.prompt_ids(processing_class, inputs, min(max_input_length, longest))
    side = architecture.padding_side(processing_class)
    settings.setdefault("tokenizer", processing_class)  # what finds the strings that a model stops at
    found = [Answer("", is_ended=True)] * len(token_ids)
    generator: Any = model  # PEFT's wrapper generates as well
    bar = progress_bar(total=len(found), desc="Predicting", unit="ex", is_shown=show_progress)
    with evaluating(model), contiguous_head(model), bar as progress:
        # Adapters that differ from batch to batch, or row to row, read a beginning differently.
        shares = around_batch is None and goes_on_from_cache(model, settings)
        prefix = shared_prefix(model, token_ids) if shares else SharedPrefix()
        generate, ends = generator.generate, end_ids(model, settings)
        if around_batch is None and ends and goes_on_in_parts(model, settings) and can_leave(model):
            generate, settings["eos_token_id"] = partial(generate_without_ended, model), ends
        beams = in_force(model, settings, "num_beams") or 1
        # Each step makes the logits of a token, of each beam.
        logits = [vocabulary_size(model) * beams] * len(token_ids)
        for rows in token_budget_batches(prefix.batch_lengths(token_ids), token_budget, logits=logits):
            prompts = [token_ids[row] for row in rows]
            batch = on_device(padded(prompts, pad, side), model.device)
            cache = prefix.before(prompts, copies=beams)
            given = {} if cache is None else {"past_key_values": cache}
            with nullcontext() if around_batch is None else around_batch(rows):
                outputs = generate(**batch, **given, **settings)
            continuations = architecture.continuations(outputs, batch["input_ids"])
            texts = processing_class.batch_decode(continuations, skip_special_tokens=True)
            # The first token of a decoder of its own is given to it, and may be the end token.
            written = continuations[:, 1:] if model.config.is_encoder_decoder else continuations
            for row, text, is_ended in zip(rows, texts, _ended(written, room, ends, model), strict=True):
                found[row] = Answer(text.strip(), is_ended)
            progress.update(len(rows))
    return found


def _ended(written: torch.Tensor, most_tokens: int, end_ids: list[int], model: PreTrainedModel) -> list[bool]:
    """Whether each row of new tokens holds an end; all do where the longest stopped before it had to."""
    if written.shape[1] < most_tokens:
        return [True] * len(written)
    if model.generation_config.forced_eos_token_id is not None:
        written = written[:, :-1]  # the last token is an end, whatever the model found
    return torch.isin(written, written.new_tensor(end_ids)).any(dim=1).tolist()
