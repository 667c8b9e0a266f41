"""The base below an upstream model that is an adapter: where it is on the Hub, and how its files are opened alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import PreTrainedModel

from ..core._compat import commit_of
from ..core.files import read_json, sha256_of
from ..hub.repository import COMMIT, Repository, is_repo_id
from ..models.adapters import check_plain_lora, is_on_merged, is_peft_model
from ..models.gguf import GGUF_RECORD
from ..models.shared_weights import base_alone
from .changes import holds_weights
from .manifest import ADAPTED_MODEL, BASE_MODEL, ENCODER, UPSTREAM_MODEL, Part
from .parts import PipelineParts

ADAPTER_CONFIG = "adapter_config.json"


def check_upstream_adapter(model: Any) -> None:
    """Refuses an upstream PEFT model that a pipeline could not store apart from its base; models without adapters pass.

    Raises:
        ValueError: It has several adapters, or one that is no plain LoRA.
    """
    if not is_peft_model(model):
        return
    if (names := list(model.peft_config)) != ["default"]:
        raise ValueError(
            f"Expected an upstream model with one adapter named default, as `PeftModel.from_pretrained(base, folder)` gives it, found "
            f"{', '.join(names)}. Load that one alone, or merge them."
        )
    check_plain_lora(model.peft_config["default"], "an upstream model with an adapter")


def base_of_adapter(model: Any, *, has_base: bool) -> str | None:
    """The part of a pipeline that an adapted model's adapter is on; None where that is the whole upstream model, or none.

    Args:
        model: The adapted model.
        has_base: Whether the pipeline's upstream model is an adapter on a base of its own.
    """
    if not has_base or not is_peft_model(model):
        return None
    return UPSTREAM_MODEL if is_on_merged(model) else BASE_MODEL


def published_base(model: PreTrainedModel) -> Part | None:
    """The base of an upstream model as it lies on the Hub, at a commit; None where its files must be stored with the pipeline.

    It is named where its safetensors are in the cache, from which it was loaded, and hold the weights that it has. No request is
    made for that.

    Args:
        model: The upstream model, a PEFT model.
    """
    base = base_alone(model)
    name: str | None = base.name_or_path
    config: Any = getattr(model, "peft_config", {}).get("default")
    known = (commit_of(base), getattr(config, "revision", None))
    revision = next((one for one in known if one and COMMIT.fullmatch(one)), None)
    if not name or Path(name).exists() or not is_repo_id(name):
        return None
    files = _cached_files(name, revision)
    if files is None or not holds_weights(files, base):
        return None
    commit = files["config.json"].parent.name
    return Part(
        {file: sha256_of(path) for file, path in sorted(files.items())}, repository=Repository(name, "model", commit)
    )


def named_base(parts: PipelineParts, unmodified: frozenset[str]) -> Part | None:
    """The base of the upstream model, where it lies on the Hub as it is now."""
    if parts.stored is not None and BASE_MODEL in unmodified:
        repository = parts.stored.repository(BASE_MODEL)
        return None if repository is None else replace(parts.stored.manifest.parts[BASE_MODEL], repository=repository)
    return published_base(parts.part(UPSTREAM_MODEL))


def named_encoder(parts: PipelineParts, unmodified: frozenset[str]) -> Part | None:
    """The encoder of the index, where it lies on the Hub as it is now; None for one of a folder."""
    if parts.stored is not None and ENCODER in unmodified:
        repository = parts.stored.repository(ENCODER)
        return None if repository is None else replace(parts.stored.manifest.parts[ENCODER], repository=repository)
    encoder = parts.part(ENCODER)
    return None if encoder.repository is None else Part(encoder.files, repository=encoder.repository)


def stored_base(parts: PipelineParts, unmodified: frozenset[str]) -> str | None:
    """The part that the adapter of the adapted model is on ([`Part.base`])."""
    if parts.stored is not None and ADAPTED_MODEL in unmodified:
        return parts.stored.manifest.parts[ADAPTED_MODEL].base
    return base_of_adapter(parts.part(ADAPTED_MODEL), has_base=parts.has(BASE_MODEL))


def _cached_files(repo_id: str, revision: str | None) -> dict[str, Path] | None:
    """The files of a model in the cache that are read to load it, by their names; None where one of them is not there."""

    def cached(file: str) -> Path | None:
        path = try_to_load_from_cache(repo_id, file, revision=revision)
        return Path(path) if isinstance(path, str) else None

    found = {"config.json": cached("config.json"), "generation_config.json": cached("generation_config.json")}
    index = cached("model.safetensors.index.json")
    found["model.safetensors.index.json"] = index
    shards = {"model.safetensors"} if index is None else set(read_json(index).get("weight_map", {}).values())
    found |= {shard: cached(shard) for shard in shards}
    needed = {"config.json", *shards}
    files = {file: path for file, path in found.items() if path is not None}
    return files if needed <= set(files) else None


def naming_base(config: Path | bytes, base: Repository | None) -> bytes:
    """An `adapter_config.json` that names the base at its commit, or none: PEFT looks for it at the root of that repository."""
    content = json.loads(config if isinstance(config, bytes) else config.read_text(encoding="utf-8"))
    content["base_model_name_or_path"] = None if base is None else base.repo_id
    content["revision"] = None if base is None else base.revision
    return (json.dumps(content, indent=2) + "\n").encode()


def published_adapter(files: Mapping[str, Path | bytes], base: Repository | None) -> dict[str, Path | bytes]:
    """The files of an adapter that names the base at its commit, or none; published with a pipeline, that is no GGUF file any more."""
    kept = {name: file for name, file in files.items() if name != GGUF_RECORD}
    return kept | {ADAPTER_CONFIG: naming_base(files[ADAPTER_CONFIG], base)}
