"""How an answer is decoded: what `generate` is told, and which of a model's own settings hold."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from .architectures import architecture_of
from .collators import pad_token_id

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
# These do the same to an answer whichever call goes on with it; others, and beams, count from where a call begins.
_AT_ANY_PLACE = {
    "forced_bos_token_id",
    "forced_eos_token_id",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "min_length",
    "bad_words_ids",
    "suppress_tokens",
    "sequence_bias",
    "renormalize_logits",
}
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
    ends, end = end_ids(model, {}), architecture_of(model).end_id(processing_class)
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


def check_asked(asked: Mapping[str, Any]) -> None:
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


def in_force(model: PreTrainedModel, settings: Mapping[str, Any], name: str) -> Any:
    """What `generate` takes a setting from: its arguments, then the configuration among them, then the model's own."""
    configurations = (settings.get("generation_config"), model.generation_config)
    found = (settings.get(name), *(getattr(configuration, name, None) for configuration in configurations))
    return next((value for value in found if value is not None), None)


def end_ids(model: PreTrainedModel, settings: Mapping[str, Any]) -> list[int]:
    """The tokens that end an answer."""
    end = settings.get("eos_token_id", model.generation_config.eos_token_id)
    return [*end] if isinstance(end, list | tuple) else [end] * (end is not None)


def goes_on_from_cache(model: PreTrainedModel, settings: Mapping[str, Any]) -> bool:
    """Whether `generate` goes on from keys and values of ours, and gives the same answers in batches of another make-up."""
    # Who passes more than settings, such as keys and values or the adapter of each row, passes it for each row of a whole batch.
    known = {*vars(GenerationConfig()), "generation_config", "tokenizer"}
    return (
        settings.keys() <= known
        and in_force(model, settings, "use_cache") is not False
        and not any(in_force(model, settings, name) for name in _OF_OTHER_STEPS)
    )


def goes_on_in_parts(model: PreTrainedModel, settings: Mapping[str, Any]) -> bool:
    """Whether a call of `generate` that goes on with an answer writes what a single call would."""
    return (
        goes_on_from_cache(model, settings)
        and "generation_config" not in settings
        and settings.get("max_new_tokens") is not None
        and in_force(model, settings, "max_time") is None
        and decoding_in_force(model, settings).keys() <= _AT_ANY_PLACE
    )
