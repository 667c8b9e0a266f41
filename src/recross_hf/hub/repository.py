"""`Repository` and `HubAccess`: which repository of the Hub is meant, and how its files are fetched."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


def looks_like_path(name: str) -> bool:
    """Whether a name that leads to nothing here was meant as a path all the same: no repository is called so."""
    return not is_repo_id(name) or name.lower().endswith(_FILE_ENDINGS)


_FILE_ENDINGS = (
    ".parquet",
    ".jsonl",
    ".json",
    ".csv",
    ".tsv",
    ".txt",
    ".xlsx",
    ".xls",
    ".arrow",
    ".gz",
    ".zip",
    ".zst",
    ".tar",
    ".yaml",
    ".yml",
    ".md",
    ".safetensors",
    ".faiss",
    ".bin",
    ".pt",
    ".pkl",
)

COMMIT = re.compile(r"[0-9a-f]{40}")
"""The name of a commit."""


@dataclass(frozen=True)
class HubAccess:
    """How files are fetched, as in `huggingface_hub`.

    Args:
        token: A token, `False` for none; the one of `hf auth login` by default.
        cache_dir: Folder where files are kept; the cache of `huggingface_hub` by default.
        local_files_only: Take what is in the cache and make no request.
        force_download: Fetch files anew that are in the cache.
    """

    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


@dataclass(frozen=True)
class Repository:
    """A repository on the Hub at a revision.

    Args:
        repo_id: Name of the repository, such as `org/name`.
        repo_type: "model", "dataset" or "space".
        revision: A branch, a tag or a commit; the main branch by default.
    """

    repo_id: str
    repo_type: str = "model"
    revision: str | None = None

    def __str__(self) -> str:
        return f"the {self.repo_type} repository {self.repo_id}"

    @property
    def url(self) -> str:
        """The address of the repository's page."""
        prefix = "" if self.repo_type == "model" else f"{self.repo_type}s/"
        return f"{constants.ENDPOINT}/{prefix}{self.repo_id}"


def is_repo_id(name: str) -> bool:
    """Whether a name could be that of a repository: `org/name`, or `name` alone."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def what_was_meant(name: str) -> str:
    """A sentence, with a space before it, on the repository that a name was probably meant for; empty where none is near."""
    address = re.sub(r"^(hf://|https?://[^/]+/)", "", name.strip())
    address = re.sub(r"^(datasets|models|spaces)/", "", address).partition("/tree/")[0].partition("/blob/")[0]
    near = address.partition("@")[0].strip("/ ").removesuffix(".git")
    return f" Pass {near!r}, without anything around it." if near not in (name, "") and is_repo_id(near) else ""


def check_revision(revision: str | None) -> None:
    """Refuses what can be no name of a branch, a tag or a commit.

    Raises:
        ValueError: It is empty, or no text.
    """
    if revision is not None and (not isinstance(revision, str) or not revision.strip()):
        raise ValueError(
            f"Expected `revision` to be a branch, a tag or a commit, found {revision!r}. Name one, or leave it out for the main branch."
        )


def part_rows(parts: Mapping[str, Repository]) -> str:
    """Rows of a table of a pipeline's parts: name, repository, commit."""
    return "\n".join(
        f"| {name} | [{repository.repo_id}]({repository.url}) | `{repository.revision}` |"
        for name, repository in parts.items()
    )
