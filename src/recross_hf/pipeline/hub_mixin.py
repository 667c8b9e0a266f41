"""`PipelineHubMixin`: a pipeline's parts, and how they are saved, loaded and published."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from datasets import Dataset
from huggingface_hub import CommitInfo, RepoCard
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..adaptation.arguments import AdaptationArguments, in_todays_names
from ..adaptation.record import RETRIEVED_FILE, Adaptation
from ..core.devices import device_of, dtype_of
from ..core.distributed import process_state
from ..core.output_folders import OF_MODELS, check_apart, check_not_of_others
from ..data.starter import STARTER_DIRECTORY
from ..hub.publishing import full_name
from ..hub.repository import HubAccess
from ..reranking.reranker import Reranker
from ..retrieval.index import UpstreamIndex
from ..retrieval.lance.index import LanceIndex
from .manifest import ADAPTED_MODEL, INDEX, RERANKER, RETRIEVED, UPSTREAM_MODEL
from .parts import PipelineParts
from .publication import CARD_FILE, PipelinePublication
from .publishing import CardContent, plan_publication
from .saving import save_pipeline
from .stored_files import TOKENIZER
from .stored_parts import StoredParts


class PipelineHubMixin:
    """The parts of a pipeline as attributes, and `save_pretrained`, `from_pretrained` and `push_to_hub`.

    Assigning an attribute replaces a part: `pipeline.reranker = None` makes a pipeline without a reranker. It is told apart from the
    stored one when the pipeline is saved or published, and so is a model that was trained in place.

    Args:
        parts: Parts of the pipeline, in memory or stored.
        adaptation: Settings of [`AdaptationArguments`] that suit the model.

    Attributes:
        parts: Parts of the pipeline ([`PipelineParts`]).
        adaptation: Settings of [`AdaptationArguments`] that suit the model.
        record: How the adapted model was adapted; None for a model that was not adapted, or that was loaded.
    """

    def __init__(self, parts: PipelineParts, adaptation: Mapping[str, Any] | None = None) -> None:
        self.parts = parts
        self.adaptation: dict[str, Any] = dict(adaptation or {})
        self.record: Adaptation | None = None

    # ---- parts -----------------------------------------------------------------------------------------------------

    @property
    def upstream_model(self) -> PreTrainedModel:
        """The multi-task model, which is never changed by an adaptation."""
        model: PreTrainedModel = self.parts.part(UPSTREAM_MODEL)
        return model

    @upstream_model.setter
    def upstream_model(self, model: PreTrainedModel) -> None:
        self.parts = self.parts.replaced(upstream_model=model)

    @property
    def processing_class(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the models."""
        tokenizer: PreTrainedTokenizerBase = self.parts.part(TOKENIZER)
        return tokenizer

    @processing_class.setter
    def processing_class(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.parts = self.parts.replaced(processing_class=tokenizer)

    @property
    def index(self) -> UpstreamIndex | LanceIndex:
        """The upstream examples and their vectors."""
        index: UpstreamIndex | LanceIndex = self.parts.part(INDEX)
        return index

    @index.setter
    def index(self, index: UpstreamIndex | LanceIndex) -> None:
        self.parts = self.parts.replaced(index=index)

    @property
    def reranker(self) -> Reranker | None:
        """The reranker, which scores the examples that dense retrieval finds; None for a pipeline without one."""
        reranker: Reranker | None = self.parts.part(RERANKER)
        return reranker

    @reranker.setter
    def reranker(self, reranker: Reranker | None) -> None:
        self.parts = self.parts.replaced(reranker=reranker)

    @property
    def adapted_model(self) -> PreTrainedModel | None:
        """The adapted model, which may be a PEFT model; None for a pipeline that was not adapted."""
        model: PreTrainedModel | None = self.parts.part(ADAPTED_MODEL)
        return model

    @adapted_model.setter
    def adapted_model(self, model: PreTrainedModel | None) -> None:
        self.parts = self.parts.replaced(adapted_model=model)

    @property
    def retrieved(self) -> Dataset | None:
        """The examples that the adapted model learned from, with `rank`, `query` and `distance`; None without one."""
        return self.parts.part(RETRIEVED)

    @retrieved.setter
    def retrieved(self, retrieved: Dataset | None) -> None:
        self.parts = self.parts.replaced(retrieved=retrieved)

    @property
    def folder(self) -> Path | None:
        """The folder that the pipeline was loaded from; None for a pipeline of the Hub, or one that was made in memory."""
        home = None if self.parts.stored is None else self.parts.stored.home
        return home if isinstance(home, Path) else None

    def check_output_dir(self, output_dir: str | Path) -> None:
        """Refuses to write an adaptation into this pipeline's folder, or where something else lies; an earlier adaptation may.

        Args:
            output_dir: Folder that an adaptation is to be written to.

        Raises:
            FileExistsError: The folder holds what no adaptation wrote.
            ValueError: The folder is the pipeline's, lies inside it or holds it.
        """
        check_apart(output_dir, {"the pipeline": self.folder})
        check_not_of_others(output_dir, RETRIEVED_FILE, overwritten=(CARD_FILE, *OF_MODELS))

    def arguments(self, **overrides: Any) -> AdaptationArguments:
        """The arguments that suit this pipeline, with some of them replaced.

        Args:
            overrides: Fields of [`AdaptationArguments`]. Nothing is reported (`report_to="none"`) unless they say otherwise.
        """
        return AdaptationArguments(**{"report_to": "none", **in_todays_names(self.adaptation), **overrides})

    # ---- saving and loading ----------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes the pipeline: `recross.json`, `upstream_model/`, `index/`, `reranker/`, and what an adaptation added.

        A folder beside it is filled first and takes its place when it is whole: killed at any point, saving loses nothing. Files of
        parts that were loaded and not modified are copied. A `README.md` that somebody wrote for the pipeline or a part is kept, and so is
        what else lies in the folder.
        Under `accelerate launch` the main process writes.

        Args:
            save_directory: Folder to write; it may be the one that the pipeline was loaded from.

        Raises:
            FileExistsError: The folder holds something that is no pipeline.
            IndexMismatchError: The upstream model was replaced or trained since the index was built.
            NotADirectoryError: The path is that of a file.
            TypeError: A part is of a class that a pipeline folder cannot hold.
            ValueError: The folder lies inside that of this pipeline.
        """
        if process_state().is_main_process:
            save_pipeline(self.parts, self.adaptation, save_directory)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        verify_checksums: bool = True,
    ) -> Self:
        """Loads a pipeline from a folder or the Hub; with no name, the small starter that comes with the package.

        A part is fetched, verified and opened when it is first used, and its errors are raised then. Under `accelerate launch`, each
        process loads a pipeline of the Hub; the main process says at which commit.

        Args:
            name_or_path: Folder of the pipeline, or name of its repository, such as `org/name`.
            revision: Branch, tag or commit of the repository. A cached pipeline of a commit loads without a request.
            token: A token of the Hub, `False` for none; the one of `hf auth login` by default.
            cache_dir: Folder that fetched files are kept in; the cache of `huggingface_hub` by default.
            local_files_only: Take the files that are in the cache and make no request.
            force_download: Fetch files anew that are in the cache.
            dtype: Data type of the models' weights, with which the index must have been built. By default it is that of the upstream model
                that the pipeline was built of, and float32 for a reranker and for an adapted model all of whose weights were trained.
            device: Device of the models; Accelerate's choice by default.
            verify_checksums: Compare every file with the checksum that was saved with it. A large file is read for that
                once, see [`is_intact`].

        Raises:
            FileNotFoundError: There is no such folder.
            HubError: The pipeline could not be had.
            ArtifactError: The folder or repository is no pipeline, or a file is missing; or, when a part is first used, one of its
                files is not the one that was saved.
            IndexMismatchError: Model and index do not belong together; raised when the index is first used.
            ValueError: There is no such `dtype` or `device`, or a folder is to have a `revision`.
        """
        stored = StoredParts.open(
            STARTER_DIRECTORY if name_or_path is None else name_or_path,
            HubAccess(token, cache_dir, local_files_only, force_download),
            revision=revision,
            dtype=None if dtype is None else dtype_of(dtype),
            device=device_of(device),
            verify_checksums=verify_checksums,
        )
        # The constructor takes parts in memory, and here none is opened yet.
        pipeline = cls.__new__(cls)
        PipelineHubMixin.__init__(pipeline, PipelineParts(stored=stored), stored.manifest.adaptation)
        return pipeline

    # ---- publishing ------------------------------------------------------------------------------------------------

    def push_to_hub(
        self,
        repo_id: str,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
        results: Mapping[str, Any] | None = None,
        license: str | None = None,
        cards: Mapping[str, RepoCard] | None = None,
    ) -> CommitInfo | None:
        """Publishes the pipeline: its parts in repositories of their own, then `recross.json`, which names their commits.

        Parts that were loaded from the Hub and not modified stay where they are and are named at their commits. An adapted
        model lies at the root of the pipeline's repository, so that `AutoModel...` or `PeftModel` opens it by its name. If
        something fails on the way, the repository holds the old pipeline, whole; called again, this uploads what is missing.

        Args:
            repo_id: Name of the repository, such as `org/name`; parts are `org/name-index` and so on.
            token: A token that may write; the one of `hf auth login` by default.
            private: Whether repositories that are made are private; by default as the namespace says.
            revision: Branch to write to; it is made where it is not there.
            create_pr: Propose the commits in place of making them.
            commit_message: First line of each commit's message.
            results: Evaluation of the upstream model on its own tasks ([`task_results`]), for its card.
            license: License for the cards that are written, such as apache-2.0.
            cards: Cards in place of those that are written, by part: `upstream_model`, `index`, `reranker`; `pipeline` names the
                pipeline's own. A `README.md` beside a part, or beside a pipeline that is published as it was loaded, is kept.

        Returns:
            The commit to the pipeline's repository; None in other processes than the main one, which publishes.

        Raises:
            HubError: There is no permission or no network, somebody else wrote at the same time, or those who may read the pipeline
                may not read a part of it.
            TypeError: A part is of a class that cannot be saved.
        """
        if not process_state().is_main_process:
            return None
        with tempfile.TemporaryDirectory() as scratch:
            planned = self.publication(
                full_name(repo_id, token), Path(scratch), results=results, license=license, cards=cards
            )
            commits = planned.push(
                token=token,
                private=private,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
            )
        return commits[-1]

    def publication(
        self,
        repo_id: str,
        scratch: Path,
        *,
        results: Mapping[str, Any] | None = None,
        license: str | None = None,
        cards: Mapping[str, RepoCard] | None = None,
    ) -> PipelinePublication:
        """Plans what `push_to_hub` writes; no request is made, unless a part has to be fetched.

        Args:
            repo_id: Name of the repository, with its namespace.
            scratch: Empty folder for files that are not on disk yet.
            results: Evaluation of the upstream model on its own tasks, as in `push_to_hub`.
            license: License for the cards that are written.
            cards: Cards in place of those that are written, by part.
        """
        longest = self.arguments().max_target_length
        content = CardContent(self.adaptation, self.record, longest, results, license, cards)
        return plan_publication(self.parts, repo_id, scratch, content)
