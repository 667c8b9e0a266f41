"""What a file from somebody else may be: safe formats, and models that ask for no code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..core.files import read_json


def git_digest(content: bytes) -> str:
    """Git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


SAFE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss", ".json", ".txt", ".md", ".model", ".jinja"})
"""Formats of artifacts: none of them can hold code that runs when it is read."""
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5"})
MANIFEST_FILE = "recross.json"


class PipelineFolderError(ValueError):
    """A folder or repository is no pipeline, or not the one that was saved; the message says what is wrong with it."""


def check_model_files(folder: Path, names: Iterable[str], *, adapter_allowed: bool = False) -> None:
    """Refuses a model whose weights are in no safe format, or whose files ask for code, or lead elsewhere.

    transformers reads a folder as a whole, so that files beside those that are named are refused, too.

    Args:
        names: the files that belong to the model.
        adapter_allowed: whether it may be a PEFT adapter.

    Raises:
        PipelineFolderError: that is so.
    """
    names = set(names)
    there = {path.name for path in folder.iterdir() if path.is_file() and path.suffix in _READ_BY_TRANSFORMERS}
    strange = sorted(there - names - {MANIFEST_FILE})
    if strange:
        raise PipelineFolderError(
            f"Expected the files of one model in {folder}, found {', '.join(strange)} beside them, which would be read with them. "
            "Remove those, or save the model again."
        )
    is_adapter = "adapter_config.json" in names
    if is_adapter and not adapter_allowed:
        raise PipelineFolderError(
            f"Expected a whole model in {folder}, found an adapter. Merge it, and save the model."
        )
    configs = {
        name: read_json(folder / name) for name in names - _TABLES if name.endswith(".json") and "/" not in name
    }
    index = configs.get("model.safetensors.index.json")
    shards = set(index.get("weight_map", {}).values()) if isinstance(index, dict) else {"model.safetensors"}
    weights = {"adapter_model.safetensors"} if is_adapter else shards
    settings = "adapter_config.json" if is_adapter else "config.json"
    if (
        not weights
        or settings not in names
        or not all(w in names and str(w).endswith(".safetensors") for w in weights)
    ):
        raise PipelineFolderError(
            f"Expected {settings} and weights as safetensors in {folder}, found {', '.join(sorted(names))}. Pickles are never "
            "loaded: save the model again with `save_pretrained`."
        )
    for name, content in configs.items():
        if not isinstance(content, dict | list):
            raise PipelineFolderError(f"Expected settings in {folder / name}, found {type(content).__name__}.")
        if name.endswith("config.json"):
            _check_settings(content, folder / name)


# What transformers and PEFT would read beside what is named.
_READ_BY_TRANSFORMERS = frozenset({".json", ".safetensors", ".bin", ".pt", ".py", ".jinja", ".model", ".txt", ".h5"})
# Of tokenizers: large, and without settings.
_TABLES = frozenset({"tokenizer.json", "vocab.json"})
_ADAPTERS = frozenset(
    {"LORA", "IA3", "ADALORA", "VERA", "DORA", "LOHA", "LOKR", "OFT", "BOFT", "PREFIX_TUNING", "P_TUNING"}
)
_ADAPTERS |= {"PROMPT_TUNING", "RANDLORA", "HRA", "LN_TUNING"}


def _check_settings(content: Any, path: Path) -> None:
    """No setting may ask for code, quantised formats of other libraries, or kernels and adapters from elsewhere."""
    if isinstance(content, list):
        for item in content:
            _check_settings(item, path)
        return
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        elsewhere = name.endswith("attn_implementation") and isinstance(value, str) and "/" in value
        other_adapter = name == "peft_type" and value not in _ADAPTERS
        if name in ("auto_map", "custom_pipelines", "quantization_config", "transformers_weights") and value:
            elsewhere = True
        if elsewhere or other_adapter:
            raise PipelineFolderError(
                f"Expected a configuration of a model that transformers knows, found {name}={str(value)[:80]!r} in {path}, which asks "
                "for code from elsewhere. Such code is never run: take a model without it."
            )
        _check_settings(value, path)
