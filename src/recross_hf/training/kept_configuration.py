"""The configurations that a model ships: a training leaves them as they are, and saves them so."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

SPECIAL_TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


class SpecialTokens:
    """Special tokens as a model's configurations have them now, to be put back later.

    `Trainer` puts the tokenizer's in their place, for the training and for good.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._configs: list[Any] = [model.config.get_text_config(), model.generation_config]
        self._own = self._current()

    def put_back(self) -> None:
        """Gives the configurations the tokens that they had."""
        self._set(self._own)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Within it, the configurations have the tokens that they had."""
        others = self._current()
        self.put_back()
        try:
            yield
        finally:
            self._set(others)

    def _current(self) -> list[dict[str, Any]]:
        return [
            {name: copy.copy(getattr(config, name)) for name in SPECIAL_TOKEN_IDS if hasattr(config, name)}
            for config in self._configs
        ]

    def _set(self, values: list[dict[str, Any]]) -> None:
        for config, of_config in zip(self._configs, values, strict=True):
            for name, value in of_config.items():
                setattr(config, name, value)


def check_can_be_saved(model: PreTrainedModel) -> None:
    """Makes sure, before a training, that transformers will save the model's generation configuration after it.

    transformers refuses a configuration that contradicts itself when it is saved: too late.

    Raises:
        ValueError: The configuration is refused.
    """
    if hasattr(model, "peft_config"):
        return  # an adapter is saved without it
    configuration: Any = model.generation_config
    with tempfile.TemporaryDirectory() as folder:
        try:
            configuration.save_pretrained(folder)
        except ValueError as error:
            raise ValueError(
                "Expected a model whose generation configuration can be saved with it, found one that transformers refuses: "
                f"{error} Change `model.generation_config` before the training; how answers are decoded here is said by "
                "`generation_num_beams` and by what is passed to `evaluate`."
            ) from error
