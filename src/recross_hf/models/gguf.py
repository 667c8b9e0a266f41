"""Weights in GGUF files: transformers makes plain ones of them, which are trained, indexed and saved like any others.

An adapter on such weights names its base as PEFT does, by folder or repository, and in a file beside that the GGUF file there.
"""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import transformers
from transformers import PreTrainedModel
from transformers.utils import cached_file, is_gguf_available

from ..core.files import is_intact, read_json, sha256_of, write_json
from ..hub.errors import ArtifactError
from .base import unwrapped

GGUF_RECORD = "gguf_base.json"
"""The file beside an adapter that names the GGUF file of its base, and its SHA-256; PEFT and servers pass it over."""
_NOTE = "recross_gguf_file"


def unpacking() -> dict[str, Any]:
    """Arguments of `from_pretrained` that unpack all weights, also where a device could compute with the packed ones.

    Raises:
        ImportError: The package that reads such files is not installed.
    """
    if not is_gguf_available():
        raise ImportError(
            "Expected the package gguf to read a GGUF file, found none that is new enough. Install `recross_hf[gguf]`.",
            name="gguf",
        )
    # Earlier versions of transformers know no packed weights, and unpack them always.
    kind = getattr(transformers, "GgufConfig", None)
    return {} if kind is None else {"quantization_config": kind(dequantize=True)}


def as_plain(model: PreTrainedModel) -> PreTrainedModel:
    """A model whose weights were unpacked, without what says that they are packed: transformers would not save it."""
    quantizer = getattr(model, "hf_quantizer", None)
    if quantizer is not None:
        quantizer.remove_quantization_config(model)
    vars(model.config).pop("quantization_config", None)
    return model


def note_file(model: PreTrainedModel, name: str, path: Path) -> None:
    """Notes on a model the GGUF file that its weights were unpacked from, by its name and its content.

    Args:
        model: The model.
        name: Name of the file in the model's folder or repository.
        path: The file.
    """
    vars(model)[_NOTE] = {"gguf_file": name, "sha256": sha256_of(path)}


def forget_file(model: PreTrainedModel) -> None:
    """Takes the note off a model whose weights are no longer those of the file."""
    vars(model).pop(_NOTE, None)


def gguf_file_of(model: PreTrainedModel) -> str | None:
    """The GGUF file that the weights of a model, or of the base of a PEFT model, were unpacked from."""
    note: dict[str, str] | None = vars(unwrapped(model)).get(_NOTE)
    return None if note is None else note["gguf_file"]


def write_record(model: PreTrainedModel, folder: Path) -> None:
    """Writes beside an adapter which GGUF file its base is; of another base, takes away what an earlier adapter left there."""
    note = vars(unwrapped(model)).get(_NOTE)
    if note is None:
        (folder / GGUF_RECORD).unlink(missing_ok=True)
    else:
        write_json(folder / GGUF_RECORD, note)


def recorded_file(record: str | Path | None, base: str, given: str | None, lookup: dict[str, Any]) -> dict[str, str]:
    """The argument of `from_pretrained` that names the GGUF file of an adapter's base; empty where it is on no such file.

    Args:
        record: The file beside the adapter; it need not be there.
        base: Name or folder of the base.
        given: Name of the file, from somebody who knows it; the recorded one by default.
        lookup: How files of the base are looked up: `revision`, `token`, ...

    Raises:
        ArtifactError: The base has no such file or another one, or the record is none.
    """
    if record is None or not Path(record).is_file():
        return {} if given is None else {"gguf_file": given}
    note = read_json(Path(record))
    name, digest = (note.get(key) if isinstance(note, dict) else None for key in ("gguf_file", "sha256"))
    if not isinstance(name, str) or not isinstance(digest, str) or not name or {"..", "/"} & {*PurePath(name).parts}:
        raise ArtifactError(
            f"Expected the name of a GGUF file and its SHA-256 in {record}, found {str(note)[:80]!r}. Save the adapter again."
        )
    file = given or name
    try:
        path = cached_file(base, file, _raise_exceptions_for_missing_entries=False, **lookup)
    except OSError:  # no such folder or repository, or nobody answers: whoever loads the base says so
        return {"gguf_file": file}
    if path is None or not is_intact(Path(path), digest):
        found = f"no {file}" if path is None else f"another file {file}"
        raise ArtifactError(
            f"Expected the GGUF file {name} (SHA-256 {digest[:12]}...) in {base}, on which the adapter in {Path(record).parent} was trained, found "
            f"{found}. Put it there, name it with `gguf_file` if it is called otherwise, or write where it is into adapter_config.json as "
            f"`base_model_name_or_path`; without {GGUF_RECORD}, the adapter goes on whichever file is named."
        )
    return {"gguf_file": file}
