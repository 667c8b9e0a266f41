"""Publishing a pipeline: a repository for each part, and the pipeline's own, which is written last."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo

from ..adaptation.record import RETRIEVED_FILE
from ..core.files import sha256_of
from ..hub.errors import HubError
from ..hub.publishing import Publication, is_private, not_private, publish
from ..hub.repository import Repository
from ..hub.safety import MANIFEST_FILE
from .bases import ADAPTER_CONFIG, published_adapter
from .manifest import ADAPTED_MODEL, BASE_MODEL, RETRIEVED, UPSTREAM_MODEL, Manifest, Part

CARD_FILE = "README.md"


@dataclass(frozen=True)
class PipelinePublication:
    """A pipeline to be published.

    Args:
        repo_id: Name of the pipeline's repository, with its namespace.
        new_parts: Repositories of parts that are to be written, by part.
        published_parts: Parts that are on the Hub, at their commits.
        adapted_files: Files of the adapted model, which lie at the root of the pipeline's repository.
        adapted_base: Part that the adapter of the adapted model is on ([`Part.base`]).
        retrieved_file: File of the examples that the adapted model learned from.
        encoder: Settings of the encoder ([`MeanPooledEncoder.settings`]).
        adaptation: Settings that the pipeline is adapted with.
        card: Gives the bytes of the pipeline's card, once it is known where its parts are.
        dtype: Data type that the models are opened in ([`Manifest.dtype`]).
    """

    repo_id: str
    new_parts: Mapping[str, Publication]
    published_parts: Mapping[str, Part]
    adapted_files: Mapping[str, Path]
    retrieved_file: Path | None
    encoder: dict[str, Any]
    adaptation: dict[str, Any]
    card: Callable[[Mapping[str, Repository]], bytes]
    adapted_base: str | None = None
    dtype: str | None = None

    def publications(self) -> list[Publication]:
        """All repositories in the order of their commits; in place of commits that are not made yet stand zeros."""
        zeros = dict.fromkeys(self.new_parts, "0" * 40)
        return [*(self.new_part(name, zeros) for name in self.new_parts), self.own(zeros)]

    def own(self, commits: Mapping[str, str]) -> Publication:
        """The pipeline's own repository.

        Args:
            commits: Commits of the new parts, by part.
        """
        parts = dict(self.published_parts)
        for name in self.new_parts:
            publication = self.new_part(name, commits)
            repository = Repository(publication.repo_id, publication.repo_type, commits[name])
            parts[name] = Part(publication.sha256, repository=repository)
        places = {name: place for name, part in parts.items() if (place := _repository(part)) is not None}
        adapted: dict[str, Path | bytes] = dict(self.adapted_files)
        if ADAPTER_CONFIG in adapted:
            base = self.adapted_base or UPSTREAM_MODEL
            # PEFT looks for the base at the root of a repository: where the base lies elsewhere, or is not one model, naming none
            # misleads nobody.
            is_one = parts[base].path == "." and not (base == UPSTREAM_MODEL and BASE_MODEL in parts)
            adapted = published_adapter(adapted, places[base] if is_one else None)
        files = dict(adapted)
        if adapted:
            own = {name: _sha256(content) for name, content in sorted(adapted.items())}
            parts[ADAPTED_MODEL] = Part(own, base=self.adapted_base)
        if self.retrieved_file is not None:
            files[RETRIEVED_FILE] = self.retrieved_file
            parts[RETRIEVED] = Part({RETRIEVED_FILE: sha256_of(self.retrieved_file)})
        files[MANIFEST_FILE] = Manifest(parts, self.encoder, self.adaptation, self.dtype).to_bytes()
        files[CARD_FILE] = self.card(places)
        return Publication(self.repo_id, "model", files)

    def new_part(self, name: str, commits: Mapping[str, str]) -> Publication:
        """The repository of a part that is to be written; an upstream adapter names its base there.

        Args:
            name: Name of the part.
            commits: Commits of the new parts that come before it.
        """
        publication = self.new_parts[name]
        if name != UPSTREAM_MODEL or ADAPTER_CONFIG not in publication.files:
            return publication
        if BASE_MODEL in self.new_parts:
            base: Repository | None = Repository(self.new_parts[BASE_MODEL].repo_id, "model", commits[BASE_MODEL])
        else:
            base = self.published_parts[BASE_MODEL].repository
        return replace(publication, files=published_adapter(publication.files, base))

    def push(
        self,
        *,
        token: str | bool | None = None,
        private: bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str | None = None,
    ) -> list[CommitInfo]:
        """Publishes the parts and then the pipeline, whose manifest names their commits; [`publish`] writes each repository.

        Until the last commit is made, the repository of the pipeline holds the old one, whole. The commits of parts that are
        proposed (`create_pr`) stay reachable as long as their pull requests are kept, merged or not.

        Args:
            token: A token, `False` for none; the one of `hf auth login` by default.
            private: Whether repositories that are made are private; by default as the namespace says.
            revision: The branch to write to, in each repository; it is made where it is not there.
            create_pr: Propose the commits in place of making them.
            commit_message: First line of each commit's message.

        Returns:
            All commits in their order; `pr_url` of a proposed one says where it is discussed.

        Raises:
            HubError: A repository could not be written; or, before the first commit, a repository is public that is to be
                private, or private and named by a public pipeline.
        """
        self._check_who_reads(token, private)
        write = partial(
            publish,
            token=token,
            private=private,
            revision=revision,
            create_pr=create_pr,
            commit_message=commit_message,
        )
        commits: dict[str, CommitInfo] = {}
        for name in self.new_parts:
            commits[name] = write(self.new_part(name, {part: commit.oid for part, commit in commits.items()}))
        last = write(self.own({name: commit.oid for name, commit in commits.items()}))
        return [*commits.values(), last]

    def _check_who_reads(self, token: str | bool | None, private: bool | None) -> None:
        """Whoever may read the pipeline must be able to read its parts."""
        own = Repository(self.repo_id)
        new = [Repository(publication.repo_id, publication.repo_type) for publication in self.new_parts.values()]
        hides = {repository: is_private(repository, token) for repository in (*new, own)}
        if private and False in hides.values():
            raise not_private(next(repository for repository, is_so in hides.items() if is_so is False))
        if hides[own] or (hides[own] is None and private):
            return
        for name, part in self.published_parts.items():
            if (repository := _repository(part)) is None:
                continue
            place = Repository(repository.repo_id, repository.repo_type)
            hides[place] = is_private(place, token)
            if hides[place] is None:
                raise HubError(
                    f"Expected {place}, which holds the part {name}, found none that the token may read. Take a token of its "
                    "owners, or load the part from a folder, so that it is published anew."
                )
        hidden = [repository for repository, is_so in hides.items() if is_so and repository != own]
        if hidden:
            raise HubError(
                f"Expected parts that everybody can read, for {own} is public, found {' and '.join(map(str, hidden))} private: "
                "nobody else could load the pipeline. Publish it with `private=True`, or make the parts public in their settings."
            )


def _repository(part: Part) -> Repository | None:
    return part.repository if part.lance is None else part.lance.repository


def _sha256(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
