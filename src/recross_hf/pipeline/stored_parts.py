"""`StoredParts`: the parts of a saved or published pipeline, each fetched, verified and opened when it is first used."""

from __future__ import annotations

import copy
import glob
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .._version import __version__
from ..adaptation.record import RETRIEVED_FILE
from ..core.distributed import agreed
from ..core.files import REMEMBERED_SIZE, read_json, read_parquet, remember_check, was_checked
from ..data.schema import check_plain
from ..hub.fetching import fetch_file, fetch_files, refuse_revision
from ..hub.repository import COMMIT, HubAccess, Repository, looks_like_path
from ..hub.safety import MANIFEST_FILE, check_model_files
from ..models.architectures import load_model
from ..reranking.cross_encoder import CrossEncoderReranker
from ..retrieval.encoder import MeanPooledEncoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.index_files import CONFIG_FILE, EXAMPLES_FILE, INDEX_FILE
from .changes import holds_weights, settings_of
from .manifest import (
    ADAPTED_MODEL,
    INDEX,
    MAX_MANIFEST_SIZE,
    RERANKER,
    RETRIEVED,
    UPSTREAM_MODEL,
    Manifest,
    check_files,
    read_manifest,
)

TOKENIZER = "processing_class"
"""Name of the tokenizer, which lies beside the models and is no part of the manifest."""
_UPSTREAM_TOKENIZER = "upstream_tokenizer"
_TOKENIZERS = (TOKENIZER, _UPSTREAM_TOKENIZER)


class StoredParts:
    """Parts that a manifest names, opened one by one.

    Args:
        manifest: Content of the pipeline's `recross.json`.
        home: Folder of the manifest, or its repository at a commit.
        access: Says how files are fetched from the Hub.
        dtype: Data type of the models' weights.
        device: Device of the models.
        verify_checksums: Whether the files of a part are compared with their checksums when it is first used.
    """

    def __init__(
        self,
        manifest: Manifest,
        home: Path | Repository,
        access: HubAccess,
        *,
        dtype: torch.dtype,
        device: torch.device,
        verify_checksums: bool = True,
    ) -> None:
        self.manifest = manifest
        self.home = home
        self.access = access
        self.dtype = dtype
        self.device = device
        self.verify_checksums = verify_checksums
        self._folders: dict[str, Path] = {}
        self._opened: dict[str, Any] = {}
        self._settings: dict[str, Any] = {}

    @classmethod
    def open(
        cls,
        name_or_path: str | Path,
        access: HubAccess,
        *,
        revision: str | None = None,
        dtype: torch.dtype,
        device: torch.device,
        verify_checksums: bool = True,
    ) -> StoredParts:
        """Reads the manifest of a folder or of a repository; the revision of a repository is looked up here and never again.

        Under `accelerate launch`, the main process looks the revision up for all, for somebody may publish in between. Each process
        must therefore open a pipeline that is not pinned to a commit.

        Args:
            name_or_path: Folder of the pipeline, or name of its repository.
            access: Says how files are fetched from the Hub.
            revision: Branch, tag or commit of the repository; the main branch by default.
            dtype: Data type of the models' weights.
            device: Device of the models.
            verify_checksums: Whether the files of a part are compared with their checksums when it is first used.

        Raises:
            FileNotFoundError: There is no such folder, and no repository can have that name.
            HubError: The repository, or its manifest, could not be had.
            ArtifactError: The folder or repository is no pipeline, or the folder lacks a file.
        """
        make = partial(cls, access=access, dtype=dtype, device=device, verify_checksums=verify_checksums)
        folder = Path(name_or_path)
        if folder.is_dir():
            refuse_revision(folder, revision)
            return make(read_manifest(folder), folder)
        if isinstance(name_or_path, Path) or looks_like_path(name_or_path):
            raise FileNotFoundError(
                f"Expected the folder of a pipeline, found none at {folder}. Name a folder that "
                "`ReCrossPipeline.save_pretrained` wrote or a repository on the Hub (`org/name`), or call "
                "`from_pretrained()` for the starter." + _interrupted_save(folder)
            )
        home = Repository(name_or_path, "model", revision)
        fetch = partial(fetch_file, name=MANIFEST_FILE, access=access, largest=MAX_MANIFEST_SIZE)
        if revision is None or not COMMIT.fullmatch(revision):
            _, home = agreed(partial(fetch, home))
        path, _ = fetch(home)
        return make(Manifest.read(path, name_or_path), home)

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.parts or name in _TOKENIZERS

    # ---- files -------------------------------------------------------------------------------------------------------

    def repository(self, name: str) -> Repository | None:
        """The repository of a part, at a commit; None for a part in a folder of this machine."""
        return self.manifest.parts[name].repository or (self.home if isinstance(self.home, Repository) else None)

    def folder(self, name: str) -> Path:
        """The folder with a part's files, fetched and verified; it may hold other files, too."""
        if name not in self._folders:
            part, repository = self.manifest.parts[name], self.repository(name)
            if repository is not None:
                self._folders[name] = fetch_files(
                    repository, part.path, part.sha256, self.access, verify=self.verify_checksums
                )
            else:
                home = Path(str(self.home))
                if self.verify_checksums:
                    check_files(home, part)
                self._folders[name] = home / part.path
        return self._folders[name]

    def files(self, name: str) -> dict[str, Path]:
        """Paths of a part's files, by their names."""
        folder = self.folder(name)
        return {file: folder / PurePosixPath(file) for file in self.manifest.parts[name].sha256}

    @property
    def fetched(self) -> list[str]:
        """Names of the parts whose files were asked for."""
        return sorted(self._folders)

    def is_adapter(self) -> bool:
        """Whether the adapted model is a PEFT adapter."""
        return ADAPTED_MODEL in self and "adapter_config.json" in self.manifest.parts[ADAPTED_MODEL].sha256

    def config(self, name: str) -> PreTrainedConfig:
        """The configuration of a model, without its weights."""
        folder = self._checked(name)
        return cast(
            PreTrainedConfig, AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )

    def indexed(self) -> tuple[Dataset, dict[str, Any]]:
        """The examples of the index, and its `index.json`, without its vectors."""
        files = self.files(INDEX)
        dataset = read_parquet(files[EXAMPLES_FILE])
        check_plain(dataset, files[EXAMPLES_FILE])
        return dataset, read_json(files[CONFIG_FILE])

    # ---- opened parts ------------------------------------------------------------------------------------------------

    def part(self, name: str) -> Any:
        """A part, opened when it is first asked for; None for a part that the pipeline has not."""
        if name not in self._opened:
            self._opened[name] = self._open(name)
            self._settings[name] = settings_of(self._opened[name])
        return self._opened[name]

    def is_opened(self, name: str) -> bool:
        """Whether a part was opened."""
        return name in self._opened

    def was_changed(self, name: str) -> bool:
        """Whether an opened part was changed in place since: its weights were trained, or its settings changed."""
        if name not in self._opened:
            return False
        opened = self._opened[name]
        if settings_of(opened) != self._settings[name]:
            return True
        has_weights = isinstance(opened, CrossEncoderReranker | torch.nn.Module)
        return has_weights and not holds_weights(self.files(name), opened)

    def _open(self, name: str) -> Any:
        if name not in self:
            return None
        openers: dict[str, Callable[[], Any]] = {
            UPSTREAM_MODEL: self._open_upstream_model,
            TOKENIZER: self._open_tokenizer,
            _UPSTREAM_TOKENIZER: partial(self._load_tokenizer, UPSTREAM_MODEL),
            INDEX: self._open_index,
            RERANKER: self._open_reranker,
            ADAPTED_MODEL: self._open_adapter if self.is_adapter() else partial(self._load, ADAPTED_MODEL),
            RETRIEVED: self._open_retrieved,
        }
        return openers[name]()

    def _open_upstream_model(self) -> PreTrainedModel:
        model = self._load(UPSTREAM_MODEL)
        repository = self.repository(UPSTREAM_MODEL)
        if repository is not None and self.manifest.parts[UPSTREAM_MODEL].path == ".":
            # Cards and adapters name the model's repository, and no folder of somebody's cache.
            model.name_or_path = model.config._name_or_path = repository.repo_id
            model.config._commit_hash = repository.revision
        return model

    def _open_tokenizer(self) -> PreTrainedTokenizerBase:
        # The tokenizer beside the adapted model saves fetching the upstream model.
        own = ADAPTED_MODEL in self and "tokenizer_config.json" in self.manifest.parts[ADAPTED_MODEL].sha256
        return self._load_tokenizer(ADAPTED_MODEL) if own else self.part(_UPSTREAM_TOKENIZER)

    def _open_reranker(self) -> CrossEncoderReranker:
        return CrossEncoderReranker.from_pretrained(self._checked(RERANKER), dtype=self.dtype, device=self.device)

    def _open_retrieved(self) -> Dataset:
        path = self.folder(RETRIEVED) / RETRIEVED_FILE
        retrieved = read_parquet(path)
        check_plain(retrieved, path)
        return retrieved

    def _open_index(self) -> UpstreamIndex:
        """Opens the index, memory-mapped."""
        model, tokenizer = self.part(UPSTREAM_MODEL), self.part(_UPSTREAM_TOKENIZER)
        encoder = MeanPooledEncoder.from_settings(model, tokenizer, self.manifest.encoder)
        folder, parts = self.folder(INDEX), self.manifest.parts
        # Whether model and index belong together depends on nothing but files whose checksums are known: of a large index
        # it is found out once.
        pair: list[Any] = [dict(parts[name].sha256) for name in (UPSTREAM_MODEL, INDEX)]
        pair += [self.manifest.encoder, str(self.dtype), __version__]
        vectors = folder / INDEX_FILE
        remembers = self.verify_checksums and vectors.is_file() and vectors.stat().st_size >= REMEMBERED_SIZE
        known = remembers and was_checked(pair)
        index = UpstreamIndex.from_pretrained(folder, encoder=encoder, verify=not known)
        if remembers and not known:
            remember_check(pair)
        return index

    def _open_adapter(self) -> PreTrainedModel:
        try:
            from peft import PeftModel
        except ImportError as error:
            raise ImportError(
                "This pipeline holds a PEFT adapter: pip install 'recross_hf[peft]' to load it."
            ) from error
        folder = self._checked(ADAPTED_MODEL)
        # The upstream model is copied only where somebody has it.
        is_held = self.is_opened(UPSTREAM_MODEL)
        base = copy.deepcopy(self.part(UPSTREAM_MODEL)) if is_held else self._load(UPSTREAM_MODEL)
        return cast(PreTrainedModel, PeftModel.from_pretrained(base, folder).eval())

    def _load(self, name: str) -> PreTrainedModel:
        model: torch.nn.Module = load_model(
            self._checked(name), dtype=self.dtype, local_files_only=True, use_safetensors=True
        )
        return cast(PreTrainedModel, model.to(self.device).eval())

    def _load_tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        folder = self._checked(name)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if tokenizer.chat_template is not None and not self.manifest.encoder.get("chat_template"):
            model = name if "config.json" in self.manifest.parts[name].sha256 else UPSTREAM_MODEL
            if not self.config(model).is_encoder_decoder:
                # It was trained and indexed without, before templates were read.
                tokenizer.chat_template = None
        return cast(PreTrainedTokenizerBase, tokenizer)

    def _checked(self, name: str) -> Path:
        folder = self.folder(name)
        check_model_files(folder, self.manifest.parts[name].sha256, adapter_allowed=name == ADAPTED_MODEL)
        return folder


def _interrupted_save(folder: Path) -> str:
    """What to do where a save was killed between two renames."""
    left = sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.replaced"))
    return f" A save was interrupted: the pipeline that was to be replaced is {left[-1]}, rename it." if left else ""
