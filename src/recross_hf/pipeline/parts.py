"""The parts of a saved or published pipeline, each fetched and opened when it is first asked for."""

from __future__ import annotations

import copy
import glob
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from .._version import __version__
from ..adaptation.record import RETRIEVED_FILE
from ..core.distributed import agreed
from ..core.files import REMEMBERED_SIZE, read_json, read_parquet, remember_check, was_checked
from ..data.schema import check_plain
from ..hub.fetching import fetch_file, fetch_files
from ..hub.repository import COMMIT, HubAccess, Repository, looks_like_path
from ..hub.safety import MANIFEST_FILE, check_model_files
from ..models.architectures import load_model
from ..reranking.cross_encoder import CrossEncoderReranker
from ..retrieval.encoder import MeanPooledEncoder
from ..retrieval.index import UpstreamIndex
from ..retrieval.index_files import CONFIG_FILE, EXAMPLES_FILE, INDEX_FILE
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


class PipelineParts:
    """What a manifest names, opened part by part.

    Args:
        manifest: the pipeline's `recross.json`.
        home: where that is: a folder, or a repository at a commit.
        access: how parts on the Hub are fetched.
        dtype: of the models.
        device: of the models.
        verify_checksums: compare the files of a part with their checksums when it is first used.
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
    ) -> PipelineParts:
        """Reads the manifest of a folder or of a repository; of the latter, the revision is looked up here and never again.

        Under `accelerate launch`, the main process looks it up for all: somebody may publish in between. So each process must
        open what is not pinned to a commit.

        Raises:
            FileNotFoundError: there is no such folder, and no repository can have that name.
            HubError: the repository, or its manifest, could not be had.
            ArtifactError: it is no pipeline, or a file of the folder is missing.
        """
        settings = {"dtype": dtype, "device": device, "verify_checksums": verify_checksums}
        folder = Path(name_or_path)
        if folder.is_dir():
            if revision is not None:
                raise ValueError(
                    f"Expected a `revision` of a pipeline on the Hub, found {revision!r} of the folder {folder}, which has none."
                )
            return cls(read_manifest(folder), folder, access, **settings)
        if isinstance(name_or_path, Path) or looks_like_path(name_or_path):
            raise FileNotFoundError(
                f"Expected the folder of a pipeline, found none at {folder}. Name a folder that "
                "`ReCrossPipeline.save_pretrained` wrote or a repository on the Hub (`org/name`), or call "
                "`from_pretrained()` for the starter." + _interrupted_save(folder)
            )
        home = Repository(name_or_path, "model", revision)
        if revision is None or not COMMIT.fullmatch(revision):
            _, home = agreed(partial(fetch_file, home, MANIFEST_FILE, access, largest=MAX_MANIFEST_SIZE))
        path, _ = fetch_file(home, MANIFEST_FILE, access, largest=MAX_MANIFEST_SIZE)
        return cls(Manifest.read(path, name_or_path), home, access, **settings)

    def __contains__(self, name: str) -> bool:
        return name in self.manifest.parts

    def repository(self, name: str) -> Repository | None:
        """Where a part is on the Hub, at a commit; None for one on disk."""
        return self.manifest.parts[name].repository or (self.home if isinstance(self.home, Repository) else None)

    def folder(self, name: str) -> Path:
        """The folder with a part's files, and perhaps others."""
        if name not in self._folders:
            part, repository = self.manifest.parts[name], self.repository(name)
            if repository is None:
                if self.verify_checksums:
                    check_files(Path(self.home), part)
                self._folders[name] = Path(self.home) / part.path
            else:
                self._folders[name] = fetch_files(
                    repository, part.path, part.sha256, self.access, verify=self.verify_checksums
                )
        return self._folders[name]

    def files(self, name: str) -> dict[str, Path]:
        """A part's files by name."""
        folder = self.folder(name)
        return {file: folder / PurePosixPath(file) for file in self.manifest.parts[name].sha256}

    # ---- what parts say of themselves without being opened -----------------------------------------------------------

    def config(self, name: str) -> PreTrainedConfig:
        """The configuration of a model."""
        return AutoConfig.from_pretrained(self._checked(name), local_files_only=True, trust_remote_code=False)

    def indexed(self) -> tuple[Dataset, dict[str, Any]]:
        """The examples of the index, and its `index.json`."""
        files = self.files(INDEX)
        dataset = read_parquet(files[EXAMPLES_FILE])
        check_plain(dataset, files[EXAMPLES_FILE])
        return dataset, read_json(files[CONFIG_FILE])

    # ---- opened parts ------------------------------------------------------------------------------------------------

    @cached_property
    def upstream_model(self) -> PreTrainedModel:
        """The upstream model; one of the Hub goes by its name there."""
        model = self._load(UPSTREAM_MODEL)
        repository = self.repository(UPSTREAM_MODEL)
        if repository is not None and self.manifest.parts[UPSTREAM_MODEL].path == ".":
            # Cards and adapters name what they are made of, and not a place in somebody's cache.
            model.name_or_path = model.config._name_or_path = repository.repo_id
            model.config._commit_hash = repository.revision
        return model

    @cached_property
    def processing_class(self) -> PreTrainedTokenizerBase:
        """The tokenizer: beside the adapted model if there is one, so that the upstream model need not be fetched for it."""
        own = ADAPTED_MODEL in self and "tokenizer_config.json" in self.manifest.parts[ADAPTED_MODEL].sha256
        return self._load_tokenizer(ADAPTED_MODEL) if own else self._upstream_tokenizer

    @cached_property
    def _upstream_tokenizer(self) -> PreTrainedTokenizerBase:
        return self._load_tokenizer(UPSTREAM_MODEL)

    @cached_property
    def index(self) -> UpstreamIndex:
        """The index, memory-mapped."""
        encoder = MeanPooledEncoder.from_settings(self.upstream_model, self._upstream_tokenizer, self.manifest.encoder)
        folder, parts = self.folder(INDEX), self.manifest.parts
        # Whether model and index belong together depends on nothing but files whose checksums are known: of a large index
        # it is found out once.
        pair = [dict(parts[name].sha256) for name in (UPSTREAM_MODEL, INDEX)]
        pair += [self.manifest.encoder, str(self.dtype), __version__]
        vectors = folder / INDEX_FILE
        remembers = self.verify_checksums and vectors.is_file() and vectors.stat().st_size >= REMEMBERED_SIZE
        known = remembers and was_checked(pair)
        index = UpstreamIndex.from_pretrained(folder, encoder=encoder, verify=not known)
        if remembers and not known:
            remember_check(pair)
        return index

    @cached_property
    def reranker(self) -> CrossEncoderReranker | None:
        """The reranker, if there is one."""
        if RERANKER not in self:
            return None
        return CrossEncoderReranker.from_pretrained(self._checked(RERANKER), dtype=self.dtype, device=self.device)

    @cached_property
    def adapted_model(self) -> PreTrainedModel | None:
        """What predicts, if the pipeline has been adapted."""
        if ADAPTED_MODEL not in self:
            return None
        if "adapter_config.json" not in self.manifest.parts[ADAPTED_MODEL].sha256:
            return self._load(ADAPTED_MODEL)
        try:
            from peft import PeftModel
        except ImportError as error:
            raise ImportError(
                "This pipeline holds a PEFT adapter: pip install 'recross_hf[peft]' to load it."
            ) from error
        folder = self._checked(ADAPTED_MODEL)
        # The upstream model is copied only where somebody has it.
        opened = "upstream_model" in vars(self)
        base = copy.deepcopy(self.upstream_model) if opened else self._load(UPSTREAM_MODEL)
        return PeftModel.from_pretrained(base, folder).eval()

    @cached_property
    def retrieved(self) -> Dataset | None:
        """What an adapted pipeline learned from."""
        if RETRIEVED not in self:
            return None
        path = self.folder(RETRIEVED) / RETRIEVED_FILE
        retrieved = read_parquet(path)
        check_plain(retrieved, path)
        return retrieved

    def holds(self, name: str, opened: Any) -> bool:
        """Whether an opened part is still what its files say: models are trained in place, too."""
        if not isinstance(opened, CrossEncoderReranker | torch.nn.Module):
            return True
        files = self.files(name)
        model = opened
        if isinstance(opened, CrossEncoderReranker):
            model, config = opened.model, read_json(files["config.json"])
            if config.get("include_answers", opened.include_answers) != opened.include_answers:
                return False
        if "adapter_config.json" in files:
            from peft import get_peft_model_state_dict

            weights = get_peft_model_state_dict(model, save_embedding_layers=False)
        else:
            weights = model.state_dict()
        stored: dict[str, torch.Tensor] = {}
        for path in files.values():
            if path.suffix == ".safetensors":
                stored |= load_file(path)
        return all(
            key not in weights or torch.equal(weights[key].cpu(), value.to(weights[key].dtype))
            for key, value in stored.items()
        )

    def _load(self, name: str) -> PreTrainedModel:
        folder = self._checked(name)
        model = load_model(folder, dtype=self.dtype, local_files_only=True, use_safetensors=True)
        return model.to(self.device).eval()

    def _load_tokenizer(self, name: str) -> PreTrainedTokenizerBase:
        return AutoTokenizer.from_pretrained(self._checked(name), local_files_only=True, trust_remote_code=False)

    def _checked(self, name: str) -> Path:
        folder = self.folder(name)
        check_model_files(folder, self.manifest.parts[name].sha256, adapter_allowed=name == ADAPTED_MODEL)
        return folder


def _interrupted_save(folder: Path) -> str:
    """What to do where a save was killed between two renames."""
    left = sorted(folder.parent.glob(f".{glob.escape(folder.name)}.*.replaced"))
    return f" A save was interrupted: the pipeline that was to be replaced is {left[-1]}, rename it." if left else ""
