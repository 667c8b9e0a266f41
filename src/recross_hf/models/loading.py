"""`load_model`: a text-to-text model of either kind, from a folder or the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import cached_file

from ..core._compat import commit_of, note_commit
from ..core.devices import dtype_of
from .architectures import architecture_of_config
from .foreign import check_built_size, is_folder_of_model
from .gguf import as_plain, note_file, unpacking


def load_model(
    name_or_path: str | Path, *, dtype: str | torch.dtype = torch.float32, **kwargs: Any
) -> PreTrainedModel:
    """Loads a sequence-to-sequence or decoder-only model, whichever it is.

    Args:
        name_or_path: A folder, or a name on the Hub.
        dtype: Precision of the weights, whatever they were saved in: steps of 1e-6 round to nothing in half precision.
        kwargs: Arguments of `from_pretrained` (`revision`, `token`, ...). `gguf_file` names a GGUF file there, whose weights are unpacked.

    Raises:
        FileNotFoundError: No folder is here, and no repository can have that name; or the folder holds no model.
        ImportError: A GGUF file is named, and the extra `[gguf]` is not installed.
        TypeError: The model is of another kind, such as a plain BERT.
        ArtifactError: The configuration in a folder asks for more than the weights beside it hold.
        ValueError: A `revision` is asked for of a folder, or there is no such `dtype`.
    """
    precision = dtype if dtype == "auto" else dtype_of(dtype)
    is_here, is_gguf = is_folder_of_model(name_or_path, kwargs), kwargs.get("gguf_file") is not None
    unpacked = unpacking() if is_gguf else {}
    kwargs = dict(kwargs, trust_remote_code=False)
    try:
        config = AutoConfig.from_pretrained(name_or_path, **kwargs)
    except OSError as error:
        if is_here:
            raise
        raise OSError(f"No folder {name_or_path} is here, and the Hub gave no such model: {error}") from error
    found = f"{(config.architectures or [type(config).__name__])[0]} in {name_or_path}"
    auto_class = architecture_of_config(config, found).auto_class
    if is_gguf:
        unpacked["config"] = config  # to read it again would take almost as long as to read the weights
    else:
        check_built_size(auto_class, config, Path(name_or_path))
    model = auto_class.from_pretrained(name_or_path, dtype=precision, **kwargs, **unpacked)
    if is_gguf:
        model = as_plain(model)
        places = {name: kwargs[name] for name in ("revision", "cache_dir", "subfolder") if name in kwargs}
        read = cached_file(str(name_or_path), kwargs["gguf_file"], local_files_only=True, **places)
        note_file(model, kwargs["gguf_file"], Path(str(read)))
    if not is_here and commit_of(model) is None:
        # Newer versions of transformers no longer note it; a card that names the base names it at this commit.
        note_commit(model, _cached_commit(str(name_or_path), kwargs))
    return model


def _cached_commit(repo_id: str, kwargs: dict[str, Any]) -> str | None:
    """The commit of a model that was just loaded, by the snapshot of the cache that it came from."""
    file = kwargs.get("gguf_file") or "config.json"
    path = try_to_load_from_cache(repo_id, file, cache_dir=kwargs.get("cache_dir"), revision=kwargs.get("revision"))
    return Path(path).parent.name if isinstance(path, str) and not kwargs.get("subfolder") else None
