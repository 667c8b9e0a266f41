"""The trainer of `recross train`: what it writes of an adapter has a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset

from .. import ExampleTrainer
from ..models.gguf import gguf_file_of
from ..pipeline.cards import lora_settings, upstream_adapter_card
from ..pipeline.publication import CARD_FILE


class UpstreamTrainer(ExampleTrainer):
    """An `ExampleTrainer` whose adapter, where it trains one, has a card that names the base by its commit."""

    upstream_dataset: Dataset | None = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Writes `README.md`."""
        model: Any = self.accelerator.unwrap_model(self.model)
        if not hasattr(model, "peft_config"):
            super().create_model_card(*args, **kwargs)
        elif self.is_world_process_zero():
            folder = Path(str(self.args.output_dir))
            (peft_config,) = model.peft_config.values()
            card = upstream_adapter_card(
                self.hub_model_id or self.args.hub_model_id or folder.resolve().name,
                base_model=peft_config.base_model_name_or_path or "",
                base_revision=peft_config.revision,
                architecture=self.architecture,
                processing_class=self.processing_class,
                settings=lora_settings(peft_config.to_dict()),
                gguf_file=gguf_file_of(model),
                examples=self.upstream_dataset,
                max_new_tokens=self.args.max_target_length,
            )
            (folder / CARD_FILE).write_text(str(card), encoding="utf-8")
