"""What a name of a model leads to, and what a configuration from somebody else would build: no more than its weights hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig

from .._version import __version__
from ..core.files import remember_check, was_checked
from ..hub.errors import ArtifactError
from ..hub.fetching import refuse_revision
from ..hub.model_sizes import held_by
from ..hub.repository import check_revision, looks_like_path, what_was_meant

HARMLESS = 1 << 24
"""Numbers that a model may have without weights for them: tables that are computed, and heads that were not trained."""


def is_folder_of_model(name_or_path: str | Path, kwargs: Mapping[str, Any]) -> bool:
    """Whether a model is in a folder of this machine; if not, a repository can have its name.

    Args:
        kwargs: Arguments of `from_pretrained`.

    Raises:
        FileNotFoundError: There is no such folder and no repository can be called so, or the folder holds no model.
        ValueError: A `revision` is none, or is asked for of a folder.
    """
    revision, folder = kwargs.get("revision"), Path(name_or_path)
    check_revision(revision)
    if str(name_or_path) == "" or not folder.exists():
        if isinstance(name_or_path, Path) or looks_like_path(name_or_path):
            raise FileNotFoundError(
                f"Expected the folder of a model, found none at {name_or_path}. Name a folder that `save_pretrained` wrote or a repository "
                f"on the Hub (`org/name`).{what_was_meant(str(name_or_path))}"
            )
        return False
    refuse_revision(name_or_path, revision)
    place = folder / kwargs.get("subfolder", "")
    packed = kwargs.get("gguf_file")
    if not (place / (packed or "config.json")).is_file():
        others = [path.name for path in sorted(place.glob("*.gguf"))]
        if packed or others:
            found = (
                f"{', '.join(others)}. Name one of them with `gguf_file`" if others else "no GGUF file. Check the name"
            )
            raise FileNotFoundError(f"Expected a model with {packed or 'config.json'} in {folder}, found {found}.")
        raise FileNotFoundError(
            f"Expected a model with config.json in {folder}, found none. Name a folder that `save_pretrained` of a model wrote; a pipeline "
            "keeps its model in its folder upstream_model."
        )
    return True


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
