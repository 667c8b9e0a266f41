"""What a file from somebody else may be: safe formats, and models that ask for no code and for no more than they hold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .._version import __version__
from ..core.files import read_json, remember_check, sha256_of, was_checked
from .errors import ArtifactError
from .generation_settings import check_generation
from .model_sizes import LARGEST_SETTINGS, check_sizes, check_tokenizer, held_by

SAFE_SUFFIXES = frozenset({".safetensors", ".parquet", ".faiss", ".json", ".txt", ".md", ".model", ".jinja"})
"""Formats of artifacts: none of them can hold code that runs when it is read."""
UNSAFE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5"})
MANIFEST_FILE = "recross.json"

# Files that transformers and PEFT would read beside those that are named.
_READ_BY_TRANSFORMERS = frozenset({".json", ".safetensors", ".bin", ".pt", ".py", ".jinja", ".model", ".txt", ".h5"})
# Files of tokenizers that are large and hold no settings, or settings of their own.
_TABLES = frozenset({"tokenizer.json", "vocab.json"})
_ADAPTERS = frozenset(
    {"LORA", "IA3", "ADALORA", "VERA", "DORA", "LOHA", "LOKR", "OFT", "BOFT", "PREFIX_TUNING", "P_TUNING"}
)
_ADAPTERS |= {"PROMPT_TUNING", "RANDLORA", "HRA", "LN_TUNING"}


def check_model_files(folder: Path, names: Iterable[str], *, adapter_allowed: bool = False) -> None:
    """Refuses a model whose weights are in no safe format, or whose files ask for code, lead elsewhere or ask for too much.

    transformers reads a folder as a whole, so that files beside those that are named are refused, too. Nothing of the model
    is built for this.

    Args:
        folder: Folder of the model.
        names: Names of the files that belong to the model.
        adapter_allowed: Whether the model may be a PEFT adapter.

    Raises:
        ArtifactError: The model is refused.
    """
    names = set(names)
    there = {path.name for path in folder.iterdir() if path.is_file() and path.suffix in _READ_BY_TRANSFORMERS}
    strange = sorted(there - names - {MANIFEST_FILE})
    if strange:
        raise ArtifactError(
            f"Expected the files of one model in {folder}, found {', '.join(strange)} beside them, which would be read with them. "
            "Remove those, or save the model again."
        )
    is_adapter = "adapter_config.json" in names
    if is_adapter and not adapter_allowed:
        raise ArtifactError(f"Expected a whole model in {folder}, found an adapter. Merge it, and save the model.")
    configs = {
        name: _read_settings(folder / name) for name in names - _TABLES if name.endswith(".json") and "/" not in name
    }
    index = configs.get("model.safetensors.index.json")
    shards = set(index.get("weight_map", {}).values()) if isinstance(index, dict) else {"model.safetensors"}
    weights = {"adapter_model.safetensors"} if is_adapter else shards
    settings = "adapter_config.json" if is_adapter else "config.json"
    if (
        not weights
        or settings not in names
        or not all(name in names and str(name).endswith(".safetensors") for name in weights)
    ):
        raise ArtifactError(
            f"Expected {settings} and weights as safetensors in {folder}, found {', '.join(sorted(names))}. Pickles are never "
            "loaded: save the model again with `save_pretrained`."
        )
    held = held_by(folder / name for name in weights)
    for name, content in configs.items():
        if not isinstance(content, dict | list) or (name.endswith("config.json") and not isinstance(content, dict)):
            raise ArtifactError(
                f"Expected settings in {folder / name}, found {type(content).__name__}. Save the model again."
            )
        if name.endswith("config.json"):
            _check_code(content, folder / name)
    check_sizes(configs[settings], held, folder / settings)
    for name in ("generation_config.json", "config.json"):
        if name in configs:
            # An adapter's weights say nothing of its base's tokens.
            check_generation(configs[name], None if is_adapter else held.longest, folder / name)
    if "tokenizer.json" in names:
        tokenizer = folder / "tokenizer.json"
        # To read its tables takes ten times as long as to read its bytes.
        digest = sha256_of(tokenizer)
        if not was_checked(["tokenizer", digest, __version__]):
            check_tokenizer(_read_settings(tokenizer), tokenizer)
            if sha256_of(tokenizer) == digest:
                remember_check(["tokenizer", digest, __version__])


def _read_settings(path: Path) -> Any:
    size = path.stat().st_size
    # A list of shards names each weight, and a table of added tokens each token.
    if path.name in ("config.json", "adapter_config.json", "generation_config.json") and size > LARGEST_SETTINGS:
        raise ArtifactError(
            f"Expected {path} of at most {LARGEST_SETTINGS:,} bytes, found {size:,}. A model needs no such settings: take "
            "another one, or save it again without what is superfluous."
        )
    try:
        return read_json(path)
    except ValueError as error:
        raise ArtifactError(f"{error}") from error


def _check_code(content: Any, path: Path) -> None:
    """No setting may ask for code, quantised formats of other libraries, or kernels and adapters from elsewhere."""
    if isinstance(content, list):
        for item in content:
            _check_code(item, path)
        return
    if not isinstance(content, dict):
        return
    for name, value in content.items():
        elsewhere = name.endswith("attn_implementation") and isinstance(value, str) and "/" in value
        other_adapter = name == "peft_type" and value not in _ADAPTERS
        if name in ("auto_map", "custom_pipelines", "quantization_config", "transformers_weights") and value:
            elsewhere = True
        if elsewhere or other_adapter:
            raise ArtifactError(
                f"Expected a configuration of a model that transformers knows, found {name}={str(value)[:80]!r} in {path}, which asks "
                "for code from elsewhere. Such code is never run: take a model without it."
            )
        _check_code(value, path)
