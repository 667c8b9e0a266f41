"""PEFT's LoRA on a base whose weights somebody else holds, too."""

from __future__ import annotations

from typing import Any

from peft.tuners.lora import LoraModel


class LoraOnSharedBase(LoraModel):
    """A `LoraModel` that copies the weights of its base before an adapter is merged into them, which PEFT does in place."""

    is_apart = False

    def merge_adapter(self, *args: Any, **kwargs: Any) -> None:
        """PEFT's, on weights of its own."""
        self._take_apart()
        super().merge_adapter(*args, **kwargs)

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> Any:
        """PEFT's, on weights of its own."""
        self._take_apart()
        return super().merge_and_unload(*args, **kwargs)

    def _take_apart(self) -> None:
        if not self.is_apart:
            for weight in self.model.parameters():
                weight.data = weight.data.clone()
        self.is_apart = True
