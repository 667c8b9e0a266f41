"""Sizes that the files of a foreign model may name: no more than its weights hold, so that nothing stalls or fills the memory."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from .errors import ArtifactError
from .expressions import runs_away

LARGEST_SETTINGS = 4 << 20
"""Bytes that a `config.json` may have; one of 20,000 labels has one and a half million."""
MANY_LABELS = 100_000
"""Labels that a configuration may name, whatever its weights hold."""
MANY_POSITIONS = 1 << 24
"""Positions that a model may take without weights for them: rotary ones, which are computed."""
HARMLESS_SIZE, HARMLESS_LAYERS = 1 << 16, 128
"""A width and a number of layers that cost little, whatever the weights hold."""
LARGEST_STEPS, DEEPEST_STEPS, LARGEST_GROWTH = 256, 16, 1 << 13
"""Parts and depth of a tokenizer's steps, and how many times as long as a text the steps may make it."""

_LAYERS = re.compile(r"(layers?|blocks?|depths?|experts|stages|codebooks)$")
_POSITIONS = re.compile(r"position|ctx|seq_len|max_length")
_SIZES = re.compile(
    r"size|dim|width|hidden|vocab|embed|heads?$|states?$|groups|channels|buckets|rank|virtual_tokens"
    r"|^(d_\w+|n_\w+|r|init_r|target_r)$"
)
_RANKS = frozenset({"r", "init_r", "target_r"})


class Held(NamedTuple):
    """What the weights of a model are, by the headers of their files.

    Attributes:
        tensors: Number of tensors.
        elements: Numbers in all of them.
        longest: The largest dimension of any of them.
        rank: The largest rank that a matrix among them can have.
    """

    tensors: int
    elements: int
    longest: int
    rank: int


def held_by(paths: Iterable[Path]) -> Held:
    """What files of weights hold; their headers alone are read.

    Raises:
        ArtifactError: A file is no safetensors.
    """
    shapes: list[list[int]] = []
    for path in paths:
        try:
            with safe_open(path, framework="numpy") as file:
                shapes += [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118  it is no mapping
        except SafetensorError as error:
            raise ArtifactError(
                f"Expected weights as safetensors in {path}, found something else ({error}). Download or save the model again."
            ) from error
    return Held(
        len(shapes),
        sum(map(math.prod, shapes)),
        max((max(shape, default=1) for shape in shapes), default=0),
        max((min(shape) for shape in shapes if len(shape) > 1), default=0),
    )


def check_sizes(settings: Any, held: Held, path: Path) -> None:
    """Compares the sizes in a configuration with the weights beside it.

    Args:
        settings: Content of a `config.json` or an `adapter_config.json`.
        held: The weights.
        path: The file, for messages.

    Raises:
        ArtifactError: A size is larger than any weights of the model could have.
    """
    is_adapter = path.name == "adapter_config.json"
    harmless = 1 if is_adapter else HARMLESS_SIZE
    has_ranks = is_adapter and settings.get("peft_type") in ("LORA", "ADALORA")
    for name, value in _numbers(settings):
        last = name.rpartition(".")[2]
        if last in ("num_labels", "id2label", "label2id"):
            limit = min(MANY_LABELS, max(held.longest, 2))
        elif _LAYERS.search(last):
            limit = max(held.tensors, HARMLESS_LAYERS)
        elif _POSITIONS.search(last):
            limit = max(held.longest, MANY_POSITIONS)
        elif has_ranks and (last in _RANKS or name.startswith("rank_pattern.")):
            limit = held.rank
        elif _SIZES.search(last):
            limit = max(held.longest, harmless)
        else:
            continue
        if value > limit:
            raise ArtifactError(
                f"Expected {name} of at most {limit:,} in {path}, found {value:,}: the weights beside it are {held.tensors:,} tensors "
                f"of {held.elements:,} numbers, the longest of {held.longest:,}. The configuration belongs to other weights, or is "
                "made to fill the memory: download or save the model again, or take another one."
            )


def _numbers(settings: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Each whole number in settings with the names that lead to it, and the length of each table of labels."""
    if isinstance(settings, dict):
        if name.rpartition(".")[2] in ("id2label", "label2id"):
            yield name, len(settings)
            return
        for key, value in settings.items():
            yield from _numbers(value, f"{name}.{key}" if name else key)
    elif isinstance(settings, list):
        for value in settings:
            yield from _numbers(value, name)
    elif isinstance(settings, int | float) and not isinstance(settings, bool) and math.isfinite(settings):
        yield name, int(settings)


def check_tokenizer(content: Any, path: Path) -> None:
    """Refuses a tokenizer whose steps are very many, or make a text very much longer, as replacements of replacements can.

    Args:
        content: Content of a `tokenizer.json`.
        path: The file, for messages.

    Raises:
        ArtifactError: The tokenizer is refused.
    """
    if not isinstance(content, dict):
        raise ArtifactError(
            f"Expected the tables and steps of a tokenizer in {path}, found {type(content).__name__}. Save the tokenizer again."
        )
    growth = 1
    for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        steps = list(_steps(content.get(name)))
        if len(steps) > LARGEST_STEPS or max((depth for depth, _ in steps), default=0) > DEEPEST_STEPS:
            raise ArtifactError(
                f"Expected a {name} of at most {LARGEST_STEPS} parts, at most {DEEPEST_STEPS} within one another, in {path}, found "
                f"{'more' if len(steps) > LARGEST_STEPS else 'deeper ones'}. No tokenizer needs that many: take another model."
            )
        for _, step in steps:
            pattern = step.get("pattern")
            expression = pattern.get("Regex") if isinstance(pattern, dict) else None
            if expression is not None and (not isinstance(expression, str) or runs_away(expression)):
                raise ArtifactError(
                    f"Expected regular expressions that repeat characters or sets of them in the {name} in {path}, found "
                    f"{str(expression)[:80]!r}, which could take any time for a text. Take another model, or write it without repetitions "
                    "within repetitions."
                )
        if name in ("normalizer", "pre_tokenizer"):
            growth *= math.prod(_growth(step) for _, step in steps)
    if growth > LARGEST_GROWTH:
        raise ArtifactError(
            f"Expected a normalizer and a pre_tokenizer that make a text at most {LARGEST_GROWTH:,} times as long in {path}, found "
            f"replacements that could make it {growth:,} times as long. They would fill the memory: take another model."
        )


def _steps(content: Any, depth: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each part of a tokenizer's step, and how deep it lies."""
    if isinstance(content, list):
        for one in content:
            yield from _steps(one, depth + 1)
    elif isinstance(content, dict):
        yield depth, content
        for one in content.values():
            yield from _steps(one, depth + 1)


def _growth(step: dict[str, Any]) -> int:
    """How many times as long a step can make a text."""
    if step.get("type") == "ByteLevel":
        return 2  # A byte above 127 becomes a character of two.
    if step.get("type") == "Replace" and isinstance(step.get("content"), str):
        # An expression may match between any two characters, too.
        return max(1, len(step["content"]) + ("Regex" in (step.get("pattern") or {})))
    return 1
