"""Texts from texts: batched generation."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from typing import Any, NamedTuple

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..core.batching import on_device, token_budget_batches
from ..core.progress import progress_bar
from ..data.inputs import input_texts
from .architectures import architecture_of
from .base import check_vocabulary, longest_answer, vocabulary_size
from .collators import pad_token_id, padded
from .heads import contiguous_head
from .modes import evaluating
from .shared_prefix import SharedPrefix, shared_prefix

_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "num_beam_groups": (None, 1),
    "diversity_penalty": (None, 0.0),
    "early_stopping": (None, False),
    "length_penalty": (None, 1.0),
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "encoder_no_repeat_ngram_size": (None, 0),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "guidance_scale": (None, 1.0),
    "renormalize_logits": (None, False),
    "bad_words_ids": (None,),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "sequence_bias": (None,),
    "stop_strings": (None,),
    "exponential_decay_length_penalty": (None,),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "watermarking_config": (None,),
}
_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
# These draw numbers batch by batch, or need keys and values of another kind.
_OF_OTHER_STEPS = (
    "do_sample",
    "cache_implementation",
    "prefill_chunk_size",
    "token_healing",
    "use_mtp",
    "prompt_lookup_num_tokens",
    "assistant_early_exit",
)
_OF_BEAMS = ("num_beam_groups", "diversity_penalty", "early_stopping", "length_penalty")


def one_answer(model: PreTrainedModel, processing_class: PreTrainedTokenizerBase) -> dict[str, Any]:
    """What `generate` is told for one answer an input, the same at each call, whatever a model ships: chat models ship sampling."""
    settings = {
        "do_sample": False,
        "num_return_sequences": 1,
        "return_dict_in_generate": False,
        "max_time": None,
        "pad_token_id": pad_token_id(processing_class),
    }
    # Answers that were trained on end with a token that need not be among those that the model stops at.
    own, end = model.generation_config.eos_token_id, architecture_of(model).end_id(processing_class)
    ends = [*own] if isinstance(own, list) else [own] * (own is not None)
    return settings if end is None or end in ends else settings | {"eos_token_id": [*ends, end]}


def decoding_in_force(model: PreTrainedModel, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Settings of a model's own generation configuration that change what it answers here, as JSON values; beams are among them.

    Sampling is not: what is scored is decoded greedily or with beams. So an empty dictionary means plain greedy decoding.

    Args:
        asked: what is passed to `generate`, which comes before the model's own.
    """
    own = model.generation_config.to_dict()
    found = {name: value for name, value in own.items() if name in _WITHOUT_EFFECT}
    found |= {name: value for name, value in (asked or {}).items() if name in _WITHOUT_EFFECT and value is not None}
    has_beams = found.get("num_beams") not in _WITHOUT_EFFECT["num_beams"]
    return {
        name: value
        for name, value in sorted(found.items())
        if value not in _WITHOUT_EFFECT[name] and (has_beams or name not in _OF_BEAMS)
    }


@contextmanager
def kept(configuration: GenerationConfig) -> Iterator[GenerationConfig]:
    """Within it, a model's generation configuration may be written into; afterwards it is what it was, by the same identity."""
    before = copy.deepcopy(vars(configuration))
    try:
        yield configuration
    finally:
        vars(configuration).clear()
        vars(configuration).update(before)


def _check_asked(asked: Mapping[str, Any]) -> None:
    """Refuses what would change nothing, or what one text an input cannot be made of.

    Raises:
        TypeError: `generation_config` is none.
        ValueError: Such an argument is given.
    """
    for name in ("num_beams", "max_new_tokens"):
        value = asked.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Integral) or value < 1):
            raise ValueError(f"`{name}` must be a whole number of at least 1, found {value!r}.")
    passed = asked.get("generation_config")
    if passed is not None and not isinstance(passed, GenerationConfig):
        raise TypeError(
            f"Expected `generation_config` to be a GenerationConfig, found {type(passed).__name__}. Pass its settings one by one."
        )
    samples = asked.get("do_sample") or getattr(passed, "do_sample", False)
    ignored = [name for name in _OF_SAMPLING if asked.get(name) is not None]
    if ignored and not samples:
        raise ValueError(
            f"Expected `do_sample=True` beside `{'`, `'.join(ignored)}`, found none: answers are decoded greedily or with beams, which "
            "that does not change. Pass both, or neither."
        )
    if asked.get("max_new_tokens") is not None and asked.get("max_length") is not None:
        raise ValueError(
            f"Expected `max_new_tokens` to say how long answers may be, found `max_length={asked['max_length']}`, which would be "
            "ignored beside it. Pass `max_new_tokens` in its place."
        )
    if asked.get("num_return_sequences") not in (None, 1) or asked.get("return_dict_in_generate"):
        raise ValueError(
            "Expected to give one text for each input, found `num_return_sequences` or `return_dict_in_generate`, which ask for more. "
            "Call `model.generate` for that."
        )


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
    _check_asked(generate_kwargs)
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
        shares = around_batch is None and _goes_on_from_cache(model, settings)
        prefix = shared_prefix(model, token_ids) if shares else SharedPrefix()
        beams = _in_force(model, settings, "num_beams") or 1
        # Each step makes the logits of a token, of each beam.
        logits = [vocabulary_size(model) * beams] * len(token_ids)
        for rows in token_budget_batches(prefix.batch_lengths(token_ids), token_budget, logits=logits):
            prompts = [token_ids[row] for row in rows]
            batch = on_device(padded(prompts, pad, side), model.device)
            cache = prefix.before(prompts, copies=beams)
            given = {} if cache is None else {"past_key_values": cache}
            with nullcontext() if around_batch is None else around_batch(rows):
                outputs = generator.generate(
                    input_ids=batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    **given,
                    **settings,
                )
            continuations = architecture.continuations(outputs, batch["input_ids"])
            texts = processing_class.batch_decode(continuations, skip_special_tokens=True)
            # The first token of a decoder of its own is given to it, and may be the end token.
            written = continuations[:, 1:] if model.config.is_encoder_decoder else continuations
            for row, text, is_ended in zip(rows, texts, _ended(written, room, model, settings), strict=True):
                found[row] = Answer(text.strip(), is_ended)
            progress.update(len(rows))
    return found


def _in_force(model: PreTrainedModel, settings: Mapping[str, Any], name: str) -> Any:
    """What `generate` takes a setting from: its arguments, then the configuration among them, then the model's own."""
    configurations = (settings.get("generation_config"), model.generation_config)
    found = (settings.get(name), *(getattr(configuration, name, None) for configuration in configurations))
    return next((value for value in found if value is not None), None)


def _goes_on_from_cache(model: PreTrainedModel, settings: Mapping[str, Any]) -> bool:
    """Whether `generate` goes on from keys and values of ours, and gives the same answers in batches of another make-up."""
    if model.config.is_encoder_decoder or _in_force(model, settings, "use_cache") is False:
        return False
    # Who passes more than settings, such as keys and values or the adapter of each row, passes it for each row of a whole batch.
    known = {*vars(GenerationConfig()), "generation_config", "tokenizer"}
    return settings.keys() <= known and not any(_in_force(model, settings, name) for name in _OF_OTHER_STEPS)


def _ended(written: torch.Tensor, most_tokens: int, model: PreTrainedModel, settings: Mapping[str, Any]) -> list[bool]:
    """Whether each row of new tokens holds an end; all do where the longest stopped before it had to."""
    if written.shape[1] < most_tokens:
        return [True] * len(written)
    end = settings.get("eos_token_id", model.generation_config.eos_token_id)
    ends = torch.tensor([*end] if isinstance(end, list | tuple) else [end] * (end is not None), device=written.device)
    if model.generation_config.forced_eos_token_id is not None:
        written = written[:, :-1]  # the last token is an end, whatever the model found
    return torch.isin(written, ends.to(written.dtype)).any(dim=1).tolist()
