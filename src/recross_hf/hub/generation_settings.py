"""What a foreign model may say of how it generates: ranges, tokens that it has, and no ways that need code or other models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import ArtifactError

_INFINITE = float("inf")
_RANGES: dict[str, tuple[float, float]] = {
    "num_beams": (1, 128),
    "num_beam_groups": (1, 128),
    "num_return_sequences": (1, 128),
    "max_length": (0, _INFINITE),
    "max_new_tokens": (1, 1 << 24),
    "min_length": (-1, 1 << 24),
    "min_new_tokens": (0, 1 << 24),
    "no_repeat_ngram_size": (0, 1 << 16),
    "encoder_no_repeat_ngram_size": (0, 1 << 16),
    "top_k": (-1, 1 << 24),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "typical_p": (0, 1),
    "epsilon_cutoff": (0, 1),
    "eta_cutoff": (0, 1),
    "temperature": (0, 1e6),
    "repetition_penalty": (1e-6, 1e6),
    "encoder_repetition_penalty": (1e-6, 1e6),
    "length_penalty": (-1e6, 1e6),
    "diversity_penalty": (-1e6, 1e6),
    "guidance_scale": (0, 1e6),
    "max_time": (0, _INFINITE),
}
"""The least and the most of numbers; answers take memory and time with them."""
_WHOLE = frozenset(name for name in _RANGES if name.startswith(("num_", "m")) or "ngram" in name or name == "top_k")
_WHOLE -= {"min_p", "max_time"}
_FLAGS = ("do_sample", "use_cache", "renormalize_logits", "remove_invalid_values", "return_dict_in_generate")
_NOT_KNOWN_HERE = (
    "assistant_early_exit",
    "compile_config",
    "constraints",
    "custom_generate",
    "dola_layers",
    "force_words_ids",
    "penalty_alpha",
    "prompt_lookup_num_tokens",
    "token_healing",
    "watermarking_config",
)
"""Ways of generating that need code from elsewhere or other models, or that change the tokens of an input."""
_MOST_STOPS, _LONGEST_STOP = 64, 256
_CACHES = (
    *("static", "offloaded_static", "sliding_window", "hybrid", "hybrid_chunked", "offloaded_hybrid"),
    *("offloaded_hybrid_chunked", "dynamic", "dynamic_full", "offloaded", "quantized", "paged"),
)
_TOKENS = ("_token_id", "_ids", "suppress_tokens", "sequence_bias")


def check_generation(content: Any, num_tokens: int | None, path: Path) -> None:
    """Refuses settings of generation that would stall, fill the memory or fail when the first answer is generated.

    Args:
        content: Content of a `generation_config.json`, or of a `config.json`, which may hold the same.
        num_tokens: More tokens than the model has embeddings of; None where that is not known.
        path: The file, for messages.

    Raises:
        ArtifactError: A setting is refused.
    """
    for name, value in content.items():
        if value is None:
            continue
        if name in _RANGES:
            least, most = _RANGES[name]
            is_number = isinstance(value, int if name in _WHOLE else int | float) and not isinstance(value, bool)
            _expect(is_number and least <= value <= most, f"{name} from {least:,} to {most:,}", value, path)
        elif name in _FLAGS:
            _expect(isinstance(value, bool), f"{name} to be true or false", value, path)
        elif name == "early_stopping":
            _expect(isinstance(value, bool) or value == "never", f"{name} to be true, false or 'never'", value, path)
        elif name == "stop_strings":
            stops = [value] if isinstance(value, str) else value
            _expect(
                isinstance(stops, list)
                and len(stops) <= _MOST_STOPS
                and all(isinstance(stop, str) and 0 < len(stop) <= _LONGEST_STOP for stop in stops),
                f"at most {_MOST_STOPS} {name} of 1 to {_LONGEST_STOP} characters",
                value,
                path,
            )
        elif name == "cache_implementation":
            _expect(value in _CACHES, f"{name} to be one of {', '.join(_CACHES)}", value, path)
        elif name in _NOT_KNOWN_HERE and path.name != "config.json":
            _expect(
                value is False or value == [],
                f"no {name}, which needs code or a model beside it",
                value,
                path,
            )
        elif name.endswith(_TOKENS) and (path.name != "config.json" or name == "decoder_start_token_id"):
            tokens = list(_whole_numbers(value))
            limit = _INFINITE if num_tokens is None else num_tokens
            _expect(
                all(-1 <= token < limit for token in tokens),
                f"tokens of {name} that the model has, below {limit:,}",
                value,
                path,
            )

    beams, answers = content.get("num_beams") or 1, content.get("num_return_sequences") or 1
    _expect(
        answers <= beams or content.get("do_sample") is True,
        f"num_return_sequences of at most the {beams} beams",
        answers,
        path,
    )


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _whole_numbers(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        yield value


def _expect(holds: bool, what: str, found: Any, path: Path) -> None:
    if not holds:
        raise ArtifactError(
            f"Expected {what} in {path}, found {str(found)[:80]!r}. The file is damaged, or made to stall: remove the setting, or take "
            "another model."
        )
