"""`StoredFiles`: the files of a saved or published pipeline's parts, each fetched and verified when they are first asked for."""

from __future__ import annotations

import glob
from contextlib import nullcontext
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Self, cast

import torch
from datasets import Dataset
from transformers import AutoConfig, PreTrainedConfig

from ..core.devices import dtype_of
from ..core.distributed import agreed
from ..core.files import read_json, read_parquet
from ..data.schema import check_plain
from ..hub.alone import alone
from ..hub.fetching import fetch_file, fetch_files, refuse_revision
from ..hub.repository import COMMIT, HubAccess, Repository, check_revision, looks_like_path, what_was_meant
from ..hub.safety import MANIFEST_FILE, check_model_files
from ..retrieval.index_files import CONFIG_FILE, EXAMPLES_FILE
from .manifest import (
    ADAPTED_MODEL,
    BASE_MODEL,
    INDEX,
    MAX_MANIFEST_SIZE,
    UPSTREAM_MODEL,
    Manifest,
    check_files,
    read_manifest,
)

TOKENIZER = "processing_class"
"""Name of the tokenizer, which lies beside the models and is no part of the manifest."""
UPSTREAM_TOKENIZER = "upstream_tokenizer"
TOKENIZERS = (TOKENIZER, UPSTREAM_TOKENIZER)


class StoredFiles:
    """Files of the parts that a manifest names.

    Args:
        manifest: Content of the pipeline's `recross.json`.
        home: Folder of the manifest, or its repository at a commit.
        access: Says how files are fetched from the Hub.
        dtype: Data type of the models' weights; by default the manifest's, and float32 for what was trained as a whole since: an adapted
            model, of which steps of 1e-6 would round to nothing, and a reranker.
        device: Device of the models.
        verify_checksums: Whether the files of a part are compared with their checksums when it is first used.
    """

    def __init__(
        self,
        manifest: Manifest,
        home: Path | Repository,
        access: HubAccess,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device,
        verify_checksums: bool = True,
    ) -> None:
        self.manifest = manifest
        self.home = home
        self.access = access
        self.dtype = dtype or dtype_of(manifest.dtype or torch.float32)
        self.trained_dtype = dtype or torch.float32
        self.device = device
        self.verify_checksums = verify_checksums
        self._folders: dict[str, Path] = {}

    @classmethod
    def open(
        cls,
        name_or_path: str | Path,
        access: HubAccess,
        *,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device,
        verify_checksums: bool = True,
    ) -> Self:
        """Reads the manifest of a folder or of a repository; the revision of a repository is looked up here and never again.

        Under `accelerate launch`, the main process looks the revision up for all, for somebody may publish in between. Each process
        must therefore open a pipeline that is not pinned to a commit.

        Args:
            name_or_path: Folder of the pipeline, or name of its repository.
            access: Says how files are fetched from the Hub.
            revision: Branch, tag or commit of the repository; the main branch by default.
            dtype: Data type of the models' weights; by default as the class says.
            device: Device of the models.
            verify_checksums: Whether the files of a part are compared with their checksums when it is first used.

        Raises:
            FileNotFoundError: There is no such folder, and no repository can have that name.
            HubError: The repository, or its manifest, could not be had.
            ArtifactError: The folder or repository is no pipeline, or the folder lacks a file.
        """
        make = partial(cls, access=access, dtype=dtype, device=device, verify_checksums=verify_checksums)
        folder = Path(name_or_path)
        check_revision(revision)
        if str(name_or_path) and folder.is_dir():
            refuse_revision(folder, revision)
            return make(read_manifest(folder), folder)
        if isinstance(name_or_path, Path) or looks_like_path(name_or_path):
            raise FileNotFoundError(
                f"Expected the folder of a pipeline, found none at {folder}. Name a folder that "
                "`ReCrossPipeline.save_pretrained` wrote or a repository on the Hub (`org/name`), or leave "
                "it out for the starter." + what_was_meant(str(name_or_path)) + _interrupted_save(folder)
            )
        home = Repository(name_or_path, "model", revision)
        fetch = partial(fetch_file, name=MANIFEST_FILE, access=access, largest=MAX_MANIFEST_SIZE)
        if revision is None or not COMMIT.fullmatch(revision):
            _, home = agreed(partial(fetch, home))
        path, _ = fetch(home)
        return make(Manifest.read(path, name_or_path), home)

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.parts or name in TOKENIZERS

    def repository(self, name: str) -> Repository | None:
        """The repository of a part, at a commit; None for a part in a folder of this machine."""
        if (lance := self.manifest.parts[name].lance) is not None:
            return lance.repository
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
        has_base = name == UPSTREAM_MODEL and BASE_MODEL in self.manifest.parts
        folder = self.checked(BASE_MODEL if has_base else name)
        return cast(
            PreTrainedConfig, AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )

    def indexed(self) -> tuple[Dataset, dict[str, Any]]:
        """The examples of the index, and its `index.json`, without its vectors."""
        files = self.files(INDEX)
        dataset = read_parquet(files[EXAMPLES_FILE])
        check_plain(dataset, files[EXAMPLES_FILE])
        return dataset, read_json(files[CONFIG_FILE])

    def checked(self, name: str) -> Path:
        """The folder with a model's files, which were found safe to read."""
        folder, names, has_base = (
            self.folder(name),
            self.manifest.parts[name].sha256,
            BASE_MODEL in self.manifest.parts,
        )
        adapter_allowed = name == ADAPTED_MODEL or (name == UPSTREAM_MODEL and has_base)
        with alone(folder, names) if name == BASE_MODEL else nullcontext(folder) as checked:
            check_model_files(checked, names, adapter_allowed=adapter_allowed)
        return folder


def _interrupted_save(folder: Path) -> str:
    """What to do where a save was killed between two renames."""
    left = sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.replaced"))
    return f" A save was interrupted: the pipeline that was to be replaced is {left[-1]}, rename it." if left else ""
