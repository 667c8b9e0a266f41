"""PEFT adapters on text-to-text models: new ones, loaded ones, and the base below them."""

from __future__ import annotations

import copy
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, set_seed
from transformers.pytorch_utils import Conv1D
from transformers.utils import cached_file, find_adapter_config_file

from ..core._compat import commit_of, note_commit
from ..core.files import read_json
from ..hub.fetching import artifact_folder
from ..hub.repository import HubAccess, check_revision, looks_like_path
from ..hub.safety import check_model_files
from .architectures import architecture_of
from .gguf import GGUF_RECORD, forget_file, recorded_file, write_record
from .loading import load_model

if TYPE_CHECKING:
    from peft import PeftConfig

TOKENIZER_CONFIG = "tokenizer_config.json"
ALL_LINEAR = "all-linear"
"""PEFT's name, as `target_modules`, for all linear layers but the output layer."""

_PLAIN_LORA: dict[str, Any] = {
    **dict.fromkeys(("use_dora", "lora_bias", "use_qalora"), False),
    **dict.fromkeys(("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication"), None),
    **dict.fromkeys(
        ("alora_invocation_tokens", "use_bdlora", "arrow_config", "kasa_config", "monteclora_config"), None
    ),
    "bias": "none",
}
"""Settings of `LoraConfig` that make it more than LoRA of linear layers, with the values that do not."""
_KEEPS_BASE = ("gaussian", "eva", "orthogonal", "mica")
"""Names of first weights (`init_lora_weights`) that leave the base as it is."""
_CHANGES_ANEW = ("pissa_niter", "corda", "lora_ga")
"""Names of those that are taken out of the base at random or by gradients and data, so that another base is below the adapter where it is opened."""


def is_peft_model(model: Any) -> bool:
    """Whether a model is one of PEFT's, which has an adapter on its base."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def check_peft_config(model: PreTrainedModel, peft_config: PeftConfig) -> None:
    """Refuses the configuration of an adapter that does not suit a model.

    Raises:
        ValueError: It is for another kind of model, names modules that the model does not have, or begins with weights that are taken
            out of the base and come out differently where the adapter is opened.
    """
    check_first_weights(peft_config)
    task_type = architecture_of(model).peft_task_type
    if peft_config.task_type not in (None, task_type):
        raise ValueError(
            f"Expected a `peft_config` with task_type={task_type!r}, which suits {type(model).__name__}, found "
            f"{str(peft_config.task_type)!r}. Set `peft_config.task_type`."
        )
    _check_target_modules(model, peft_config)


def check_first_weights(peft_config: PeftConfig) -> None:
    """Refuses an adapter whose first weights are taken out of its base and come out differently where it is opened.

    Raises:
        ValueError: They do.
    """
    first = getattr(peft_config, "init_lora_weights", True)
    if isinstance(first, str) and first.lower().startswith(_CHANGES_ANEW):
        raise ValueError(
            f"Expected first weights that leave the base as it is, found init_lora_weights={first!r}: whoever opens the adapter would have "
            "another base below it. Take the default (True), or 'pissa'."
        )


def with_new_adapter(model: PreTrainedModel, peft_config: PeftConfig, seed: int) -> PreTrainedModel:
    """Puts a new adapter on a model, in place: the PEFT model whose adapter alone is trained.

    Args:
        model: A model without adapters; its modules are replaced by those of PEFT.
        peft_config: Configuration of the adapter, which is copied.
        seed: Seed of the adapter's first weights.
    """
    from peft import get_peft_model

    set_seed(seed)
    # PEFT writes into the configuration that it is given, and its models do whatever the model below them does.
    return cast(PreTrainedModel, get_peft_model(model, copy.deepcopy(peft_config)))


_MERGED = "recross_merged_adapter"


def merged_in_place(model: PreTrainedModel, *, is_named: bool) -> PreTrainedModel:
    """The base of a PEFT model with the adapter merged into its weights, in float32 where they are in half precision.

    That would round most of what the adapter adds away: it changes a weight by less than 8 or 11 bits tell apart.

    Args:
        model: The PEFT model, which is used up.
        is_named: Whether it keeps its base's name. An adapter that is trained on it must not name that base, on which it would
            give other answers without a word.
    """
    merged: Any = model
    if any(weight.dtype in (torch.bfloat16, torch.float16) for weight in model.parameters()):
        merged = merged.float()
    merged = merged.merge_and_unload()
    vars(merged)[_MERGED] = True
    forget_file(merged)
    if not is_named:
        merged.name_or_path = merged.config.name_or_path = ""
        note_commit(merged, None)
    return cast(PreTrainedModel, merged)


def is_on_merged(model: Any) -> bool:
    """Whether the adapter of a PEFT model was trained on a base into which another one had been merged."""
    return is_peft_model(model) and _MERGED in vars(model.get_base_model())


def adapter_settings(model: Any) -> dict[str, str]:
    """What a card says of the adapter that a model has, or that was merged into its weights; nothing of a model without one."""
    if not is_peft_model(model):
        return {"adapter": "merged into the weights"} if _MERGED in vars(model) else {}
    config = model.peft_config[model.active_adapters[0]]
    said = {
        "adapter": f"{getattr(config.peft_type, 'value', config.peft_type)}, rank {getattr(config, 'r', 'not stated')}"
    }
    on = {"base of the adapter": "the base with the upstream model's adapter merged into it"}
    return said | (on if is_on_merged(model) else {})


def check_plain_lora(peft_config: PeftConfig, where: str, *, keeps_base: bool = True) -> None:
    """Refuses an adapter that is anything but plain LoRA, which any server loads and which mixes with others in a batch.

    Args:
        peft_config: Configuration of the adapter.
        where: What it is of, for the message.
        keeps_base: Whether to refuse first weights that are taken out of the base's, too, such as PiSSA's: whoever loads the adapter changes
            the base, below other adapters as well, and on a base that was changed before the result is another.

    Raises:
        ValueError: It is another kind of adapter, or changes more than linear layers by low ranks.
    """
    if found := _beyond_plain_lora(peft_config, keeps_base):
        raise ValueError(
            f"Expected plain LoRA of {where}, found {found}. Train it with `LoraConfig` and without those, or merge it "
            "(`merge_and_unload()`) and take the whole model."
        )


def is_plain_lora(peft_config: PeftConfig) -> bool:
    """Whether an adapter changes linear layers by low ranks, and nothing else: its base stays as it is."""
    return not _beyond_plain_lora(peft_config, keeps_base=True)


def _beyond_plain_lora(peft_config: PeftConfig, keeps_base: bool) -> str:
    if str(getattr(peft_config.peft_type, "value", peft_config.peft_type)) != "LORA":
        return f"peft_type={peft_config.peft_type!s}"
    settings = {name: getattr(peft_config, name, usual) for name, usual in _PLAIN_LORA.items()}
    others = {name: value for name, value in settings.items() if value and value != _PLAIN_LORA[name]}
    first = getattr(peft_config, "init_lora_weights", True)
    if keeps_base and isinstance(first, str) and first.lower() not in _KEEPS_BASE:
        others["init_lora_weights"] = first
    return ", ".join(f"{name}={value!r}" for name, value in others.items())


def save_adapter(model: Any, folder: Path) -> None:
    """Writes the adapter of a PEFT model, which names its base as it was loaded: by its commit and its GGUF file, where it has them."""
    for peft_config in model.peft_config.values():
        peft_config.revision = peft_config.revision or commit_of(model)
    # The base of an adapter stays as it is: PEFT would ask the Hub whether its vocabulary was resized.
    model.save_pretrained(folder, save_embedding_layers=False)
    write_record(model, folder)


def load_upstream_model(name_or_path: str | Path, *, is_trainable: bool = False, **kwargs: Any) -> PreTrainedModel:
    """Loads a model, whole or as a PEFT adapter on the base that the adapter names, whichever lies there.

    Args:
        name_or_path: A folder, or a name on the Hub.
        is_trainable: Whether an adapter is to be trained further.
        kwargs: Arguments of [`load_model`]. `revision` is that of the repository that is named: an adapter's, whose configuration names
            the revision of its base. How files are fetched (`token`, `cache_dir`, ...) holds for both. The `gguf_file` of a base need not
            be named: the adapter was saved with its name.

    Raises:
        ArtifactError: It is an adapter whose weights are pickled, that asks for code, or whose GGUF base is not what it was trained on.
        ImportError: It is an adapter, and PEFT is not installed.
        ValueError: It is an adapter that names no base, or a `revision` is asked for of a folder.
    """
    revision, fetched = kwargs.get("revision"), _fetching(kwargs)
    if (found := _named_base(name_or_path, revision, fetched)) is None:
        return load_model(name_or_path, **kwargs)
    from peft import PeftModel

    # PEFT alone would read pickles where there are no safetensors.
    folder = artifact_folder(name_or_path, "model", revision, HubAccess(**fetched))
    check_model_files(folder, [path.name for path in folder.iterdir() if path.is_file()], adapter_allowed=True)
    base_name, base_revision = found
    lookup = fetched | {"revision": base_revision}
    packed = recorded_file(folder / GGUF_RECORD, base_name, kwargs.get("gguf_file"), lookup)
    base = load_model(base_name, **kwargs | {"revision": base_revision} | packed)
    return cast(PreTrainedModel, PeftModel.from_pretrained(base, str(folder), is_trainable=is_trainable))


def load_upstream_tokenizer(name_or_path: str | Path, **kwargs: Any) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of [`load_upstream_model`]: PEFT writes none beside an adapter, which then has that of its base.

    Args:
        name_or_path: A folder, or a name on the Hub.
        kwargs: `revision`, `token`, ..., as of the model.
    """
    named, revision, fetched = str(name_or_path), kwargs.pop("revision", None), _fetching(kwargs)
    packed = kwargs.pop("gguf_file", None)
    if (base := _named_base(name_or_path, revision, fetched)) is not None:
        lookup = {"revision": revision, **fetched, "_raise_exceptions_for_missing_entries": False}
        if cached_file(named, TOKENIZER_CONFIG, **lookup):
            packed = None
        else:
            record = cached_file(named, GGUF_RECORD, **lookup)
            named, revision = base
            packed = recorded_file(record, named, packed, fetched | {"revision": revision}).get("gguf_file")
    kwargs |= {"revision": revision or "main", "trust_remote_code": False}
    if packed is not None:
        # transformers looks for the file at the newest commit and in the usual cache, whatever it is told.
        lookup = {"revision": revision, **fetched, "subfolder": kwargs.pop("subfolder", "")}
        found = Path(str(cached_file(named, packed, **lookup)))
        named, kwargs["gguf_file"] = str(found.parents[len(Path(packed).parts) - 1]), packed
    return AutoTokenizer.from_pretrained(named, **kwargs)


def _fetching(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Of the arguments of `from_pretrained`, those that say how files are fetched from any repository."""
    return {field.name: kwargs[field.name] for field in fields(HubAccess) if field.name in kwargs}


def _named_base(
    name_or_path: str | Path, revision: str | None, fetched: dict[str, Any]
) -> tuple[str, str | None] | None:
    """The base that an adapter names, and its revision; None for what is no adapter."""
    check_revision(revision)
    place = Path(name_or_path)
    is_somewhere = place.is_dir() or not (place.exists() or looks_like_path(str(name_or_path)))
    found = find_adapter_config_file(str(name_or_path), revision=revision, **fetched) if is_somewhere else None
    if found is None:
        return None
    settings = read_json(Path(found))
    if not (base_name := settings.get("base_model_name_or_path")):
        raise ValueError(
            f"Expected an adapter that names its base, found none in {found}. Write it there as `base_model_name_or_path`, or load the "
            "base and pass `PeftModel.from_pretrained(base, adapter)`."
        )
    return base_name, settings.get("revision")


def _check_target_modules(model: PreTrainedModel, peft_config: PeftConfig) -> None:
    """PEFT passes over names that the model does not have, if it has another of them."""
    wanted = getattr(peft_config, "target_modules", None)
    if wanted is None or isinstance(wanted, str):  # PEFT's choice, or a regular expression, which it checks
        return
    names = [name for name, _ in model.named_modules()]
    missing = sorted(one for one in wanted if not any(name == one or name.endswith(f".{one}") for name in names))
    if missing:
        linear = {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear | Conv1D)
        }
        raise ValueError(
            f"Expected `target_modules` that {type(model).__name__} has, such as {', '.join(sorted(linear))}, found "
            f"{', '.join(map(repr, missing))}. Name some of those, or leave them out for PEFT's choice."
        )
