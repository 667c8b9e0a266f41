"""`AdaptedTasks`: adapters of many tasks on one base in memory, switched between calls or mixed in a batch."""

from __future__ import annotations

import difflib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from ..core._compat import commit_of
from ..core.files import read_json
from ..core.run_settings import both_values, changed_settings
from ..hub.fetching import artifact_folder
from ..hub.repository import HubAccess, Repository, is_repo_id
from ..hub.safety import MANIFEST_FILE, SAFE_SUFFIXES, check_model_files
from ..models.adapters import TOKENIZER_CONFIG, check_plain_lora, is_on_merged, is_peft_model
from ..models.architectures import architecture_of
from ..models.shared_weights import base_alone, on_shared_weights
from ..training._compat import activate_adapter
from .bases import ADAPTER_CONFIG
from .changes import holds_weights
from .manifest import ADAPTED_MODEL, UPSTREAM_MODEL, Part, check_files, read_manifest
from .mixed_batches import BASE_NAME, mixing

if TYPE_CHECKING:
    from peft import PeftModel


class AdaptedTasks:
    """Plain LoRA adapters, by name, on one base whose weights they share.

    Args:
        base: The base, whose weights are shared with the caller; its modules stay as they are.
        base_files: The base's files as they were stored, which tell whether an adapted pipeline has the same; None where they are
            not known.
        processing_class: The tokenizer that inputs of all tasks are read with.
    """

    def __init__(
        self, base: PreTrainedModel, base_files: Part | None = None, *, processing_class: PreTrainedTokenizerBase
    ) -> None:
        self.base = base
        self.base_files = base_files
        self.processing_class = processing_class
        self.settings: dict[str, dict[str, Any]] = {}
        self._model: PeftModel | None = None
        self._layers: list[Any] = []

    @property
    def names(self) -> list[str]:
        """The adapters' names."""
        return list(self.settings)

    def add(
        self, name: str, source: str | Path | PreTrainedModel, access: HubAccess, revision: str | None = None
    ) -> None:
        """Loads an adapter.

        Args:
            name: What it is called from then on.
            source: Folder or repository of an adapter, or of an adapted pipeline; or a PEFT model in memory.
            access: Says how files are fetched from the Hub.
            revision: Branch, tag or commit of a repository.

        Raises:
            ArtifactError: The files are not those that were saved, or not safe to read.
            ValueError: The name cannot be taken, or it is no plain LoRA adapter on this base.
        """
        if not isinstance(name, str) or not name.isidentifier() or name in (*self.names, BASE_NAME):
            taken = " that no other adapter has" if name in self.names else ""
            raise ValueError(
                f"Expected a name for an adapter of letters, digits and underscores{taken}, found {name!r}. Choose another"
                f"{', or remove that one first' if taken else ''}."
            )
        if isinstance(source, PreTrainedModel) or is_peft_model(source):
            self._add_from_memory(name, source)
            return
        folder = artifact_folder(source, "model", revision, access)
        settings: dict[str, Any] = {}
        reads_turns = True
        if (folder / MANIFEST_FILE).is_file():
            manifest = read_manifest(folder)
            part = manifest.parts.get(ADAPTED_MODEL)
            if part is None or ADAPTER_CONFIG not in part.sha256:
                raise _no_adapter(source, "a pipeline without one")
            check_files(folder, part)
            self._check_base_files(folder, manifest.parts, part, source)
            settings, folder, files = manifest.adaptation, folder / part.path, list(part.sha256)
            reads_turns = bool(manifest.encoder.get("chat_template"))
        elif (folder / ADAPTER_CONFIG).is_file():
            files = [path.name for path in folder.iterdir() if path.is_file() and path.suffix in SAFE_SUFFIXES]
        else:
            raise _no_adapter(source, f"no {ADAPTER_CONFIG}")
        check_model_files(folder, files, adapter_allowed=True)
        self._check_named_base(folder, source)
        if TOKENIZER_CONFIG in files:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer.chat_template = tokenizer.chat_template if reads_turns else None
            self.check_reading(tokenizer, source)
        self._load(name, folder, source)
        self.settings[name] = dict(settings)

    def remove(self, name: str) -> None:
        """Forgets an adapter, and frees its memory."""
        self.check_names([name])
        del self.settings[name]
        if self.settings and self._model is not None:
            activate_adapter(self._layers, self.names[0])  # PEFT warns where the active one goes
            self._model.delete_adapter(name)
        else:
            self._model, self._layers = None, []

    def with_active(self, name: str) -> PreTrainedModel:
        """The model with one adapter switched on, until another is."""
        self.check_names([name])
        activate_adapter(self._layers, name)
        return cast(PreTrainedModel, self._model)

    def mixed(
        self, names: Sequence[str], num_inputs: int
    ) -> tuple[PreTrainedModel, Callable[[Sequence[int]], AbstractContextManager[None]]]:
        """The model that answers each input with an adapter of its own, and the context in which it answers those at some positions.

        Raises:
            ValueError: There is no such adapter, or not one name for each input.
        """
        if isinstance(names, str) or len(names) != num_inputs:
            found = repr(names) if isinstance(names, str) else str(len(names))
            raise ValueError(
                f"Expected `adapter_names` to have a name for each of the {num_inputs} inputs, found {found}. Repeat a name as often as it "
                "is to answer."
            )
        self.check_names([name for name in dict.fromkeys(names) if name != BASE_NAME])
        activate_adapter(self._layers, None)
        model = self.base if self._model is None else cast(PreTrainedModel, self._model)
        return model, lambda rows: mixing(self._layers, [names[row] for row in rows])

    def check_names(self, names: Sequence[str]) -> None:
        """Refuses a name that no adapter has.

        Raises:
            ValueError: The message names the adapter with the nearest name.
        """
        for name in names:
            if name not in self.settings:
                near = difflib.get_close_matches(str(name), self.names, n=1)
                known = ", ".join(self.names) or "none yet"
                raise ValueError(
                    f"Expected the name of an adapter that was added ({known}), found {name!r}."
                    f"{f' Did you mean {near[0]}?' if near else ''} Add it with `add_adapted`."
                )

    # ---- loading -----------------------------------------------------------------------------------------------------

    def _add_from_memory(self, name: str, model: Any) -> None:
        if not is_peft_model(model):
            raise _no_adapter(type(model).__name__, "a whole model")
        if is_on_merged(model):
            raise _on_merged("the adapted model")
        own, theirs = self.base.state_dict(), base_alone(model).state_dict()
        if own.keys() != theirs.keys() or not all(_equal(theirs[key], value) for key, value in own.items()):
            raise ValueError(
                "Expected the adapted model to be on the base of this pipeline, found one on other weights. Adapt this pipeline to the task."
            )
        with tempfile.TemporaryDirectory() as scratch:
            model.save_pretrained(scratch, save_embedding_layers=False)
            self._check_named_base(Path(scratch), "the adapted model")
            self._load(name, Path(scratch), "the adapted model")
        self.settings[name] = {}

    def _load(self, name: str, folder: Path, source: Any) -> None:
        from peft import PeftConfig
        from peft.tuners.lora import LoraLayer

        check_plain_lora(PeftConfig.from_pretrained(str(folder)), f"the adapter {source}")
        try:
            if self._model is None:
                self._model = on_shared_weights(self.base, folder, name)
            else:
                self._model.load_adapter(str(folder), adapter_name=name, low_cpu_mem_usage=True)
        except (RuntimeError, ValueError) as error:
            if self.settings and self._model is not None and name in self._model.peft_config:
                self._model.delete_adapter(name)
            elif not self.settings:
                self._model = None
            raise ValueError(
                f"Expected the adapter {source} to fit {type(self.base).__name__}, found one of other modules or shapes, which is on "
                f"another base: {' '.join(str(error).split())[:200]}"
            ) from error
        self._model.eval().requires_grad_(False)
        self._layers = [module for module in self._model.modules() if isinstance(module, LoraLayer)]
        if any(name in layer.lora_embedding_A for layer in self._layers):
            self.settings[name] = {}
            self.remove(name)
            raise ValueError(
                f"Expected the adapter {source} to change linear layers, found one that changes embeddings, which does not mix with others. "
                "Leave them out of `target_modules`."
            )

    def check_reading(self, processing_class: PreTrainedTokenizerBase, source: Any) -> None:
        """Refuses an adapter that was trained on other prompts than those that it would be given here.

        Args:
            processing_class: The tokenizer that it was trained with.
            source: The adapter, for the message.

        Raises:
            ValueError: The tokenizer has another chat template or system prompt.
        """
        reading = architecture_of(self.base).reading
        changed = changed_settings(reading(processing_class), reading(self.processing_class))
        if changed:
            raise ValueError(
                f"Expected the adapter {source} to read inputs as this pipeline does, found that it was trained with another chat template or "
                f"system prompt ({both_values(changed)}). Open a pipeline that reads so, or adapt this one to the task."
            )

    # ---- the base ----------------------------------------------------------------------------------------------------

    def _check_base_files(self, folder: Path, parts: Mapping[str, Part], adapted: Part, source: Any) -> None:
        """Compares the weights that an adapted pipeline names as its adapter's base with those of this one."""
        base = adapted.base or UPSTREAM_MODEL
        if base == UPSTREAM_MODEL and ADAPTER_CONFIG in parts[base].sha256:
            raise _on_merged(source)
        if self.base_files is None:
            return
        theirs, own = (
            {name: digest for name, digest in part.sha256.items() if name.endswith(".safetensors")}
            for part in (parts[base], self.base_files)
        )
        place = folder / parts[base].path
        # Earlier versions wrote the weights of a checkpoint in half precision in float32: other files, and the same weights.
        is_here = parts[base].repository is None and theirs.keys() == own.keys()
        files = {name: place / name for name in theirs}
        if theirs != own and not (is_here and holds_weights(files, self.base, knows_all=True)):
            raise ValueError(
                f"Expected the adapter {source} to be on the base of this pipeline, found one on other weights "
                f"({_place(parts[base].repository)}; this pipeline: {_place(self.base_files.repository)}). Open the pipeline that it was "
                "adapted from, or adapt this one to the task."
            )

    def _check_named_base(self, folder: Path, source: Any) -> None:
        """Compares the base that an adapter names, and its commit, with this one, where both are known."""
        settings = read_json(folder / ADAPTER_CONFIG)
        theirs, own = settings.get("base_model_name_or_path"), self.base.name_or_path
        if not theirs or not own or not (is_repo_id(theirs) and is_repo_id(own)) or Path(own).exists():
            return
        if theirs != own:
            raise ValueError(
                f"Expected the adapter {source} to be on {own}, the base of this pipeline, found one on {theirs}. Open a pipeline on that "
                "base, or adapt this one to the task."
            )
        revision, commit = settings.get("revision"), commit_of(self.base)
        if revision and commit and revision != commit:
            raise ValueError(
                f"Expected the adapter {source} to be on {own} at commit {commit}, found one on commit {revision}: the base has moved on the "
                "Hub since. Open the pipeline that names the other commit, or adapt this one to the task."
            )


def _equal(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one.to(other.device, other.dtype), other)


def _place(repository: Repository | None) -> str:
    return "a folder" if repository is None else f"{repository.repo_id} at commit {repository.revision}"


def _no_adapter(source: Any, found: str) -> ValueError:
    return ValueError(
        f"Expected a LoRA adapter in {source}, found {found}. Adapt with `peft_config` (--use_peft), or name the folder of an adapter."
    )


def _on_merged(source: Any) -> ValueError:
    return ValueError(
        f"Expected the adapter {source} to be on the base, found one on base and upstream adapter merged, which others cannot share. Adapt "
        "with `upstream_adapter='continue'`."
    )
