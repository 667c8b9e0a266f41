"""Publishing a pipeline: a repository for each part, and the pipeline's own, which is written last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
from .manifest import ADAPTED_MODEL, RETRIEVED, UPSTREAM_MODEL, Manifest, Part

CARD_FILE = "README.md"


@dataclass(frozen=True)
class PipelinePublication:
    """A pipeline to be published.

    Args:
        repo_id: Name of the pipeline's repository, with its namespace.
        new_parts: Repositories of parts that are to be written, by part.
        published_parts: Parts that are on the Hub, at their commits.
        adapted_files: Files of the adapted model, which lie at the root of the pipeline's repository.
        retrieved_file: File of the examples that the adapted model learned from.
        encoder: Settings of the encoder ([`MeanPooledEncoder.settings`]).
        adaptation: Settings that the pipeline is adapted with.
        card: Gives the bytes of the pipeline's card, once it is known where its parts are.
    """

    repo_id: str
    new_parts: Mapping[str, Publication]
    published_parts: Mapping[str, Part]
    adapted_files: Mapping[str, Path]
    retrieved_file: Path | None
    encoder: dict[str, Any]
    adaptation: dict[str, Any]
    card: Callable[[Mapping[str, Repository]], bytes]

    def publications(self) -> list[Publication]:
        """All repositories in the order of their commits; in place of commits that are not made yet stand zeros."""
        return [*self.new_parts.values(), self.own(dict.fromkeys(self.new_parts, "0" * 40))]

    def own(self, commits: Mapping[str, str]) -> Publication:
        """The pipeline's own repository.

        Args:
            commits: Commits of the new parts, by part.
        """
        parts = dict(self.published_parts)
        for name, publication in self.new_parts.items():
            repository = Repository(publication.repo_id, publication.repo_type, commits[name])
            parts[name] = Part(publication.sha256, repository=repository)
        places = {name: part.repository for name, part in parts.items() if part.repository is not None}
        adapted: dict[str, Path | bytes] = dict(self.adapted_files)
        if "adapter_config.json" in adapted:
            config = json.loads(self.adapted_files["adapter_config.json"].read_text(encoding="utf-8"))
            # PEFT looks for the base at the root of a repository: where the base lies elsewhere, naming none misleads nobody.
            at_root = parts[UPSTREAM_MODEL].path == "."
            config["base_model_name_or_path"] = places[UPSTREAM_MODEL].repo_id if at_root else None
            config["revision"] = places[UPSTREAM_MODEL].revision if at_root else None
            adapted["adapter_config.json"] = (json.dumps(config, indent=2) + "\n").encode()
        files = dict(adapted)
        if adapted:
            parts[ADAPTED_MODEL] = Part({name: _sha256(content) for name, content in sorted(adapted.items())})
        if self.retrieved_file is not None:
            files[RETRIEVED_FILE] = self.retrieved_file
            parts[RETRIEVED] = Part({RETRIEVED_FILE: sha256_of(self.retrieved_file)})
        files[MANIFEST_FILE] = Manifest(parts, self.encoder, self.adaptation).to_bytes()
        files[CARD_FILE] = self.card(places)
        return Publication(self.repo_id, "model", files)

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
        commits = {name: write(publication) for name, publication in self.new_parts.items()}
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
            if part.repository is None:
                continue
            place = Repository(part.repository.repo_id, part.repository.repo_type)
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


def _sha256(content: Path | bytes) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
