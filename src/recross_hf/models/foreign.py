"""What a configuration from somebody else would build: no more than the weights beside it hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig

from .._version import __version__
from ..core.files import remember_check, was_checked
from ..hub.errors import ArtifactError
from ..hub.model_sizes import held_by

HARMLESS = 1 << 24
"""Numbers that a model may have without weights for them: tables that are computed, and heads that were not trained."""


def check_built_size(auto_class: Any, config: PreTrainedConfig, folder: Path) -> None:
    """Builds a model without memory for it, and compares its size with the weights in a folder, where they are safetensors.

    What the weights lack is made at random and takes memory when a model is loaded. `hub.safety.check_model_files` bounds each
    size, and thus the time that this takes; their products are bounded here. Since to build a model takes as long as to load a small
    one, a configuration that passed beside as many numbers is not built again.

    Args:
        auto_class: What loads such models, such as `AutoModelForSeq2SeqLM`.
        config: The configuration.
        folder: The folder with the weights.

    Raises:
        ArtifactError: The model is more than twice as large as its weights.
    """
    paths = sorted(folder.glob("*.safetensors"))
    # Quantised weights hold several numbers in one; no artifact may have them.
    if not paths or hasattr(config, "quantization_config"):
        return
    held = held_by(paths).elements
    versions = [__version__, transformers.__version__]
    check = ["built size", auto_class.__name__, config.to_json_string(use_diff=False), held, *versions]
    if was_checked(check):
        return
    with torch.device("meta"):
        model = auto_class.from_config(config, trust_remote_code=False)
    built = sum(tensor.numel() for tensors in (model.parameters(), model.buffers()) for tensor in tensors)
    if built > 2 * held + HARMLESS:
        raise ArtifactError(
            f"Expected weights of about {built:,} numbers in {folder}, as its config.json says, found {held:,}. The configuration "
            "belongs to other weights, or is made to fill the memory: download or save the model again, or take another one."
        )
    remember_check(check)
